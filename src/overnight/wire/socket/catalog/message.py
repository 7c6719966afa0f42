"""What the catalog says of one type of message, and how its payload is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from overnight.errors import InvalidPayload

Side = Literal["client", "server"]
Role = Literal["request", "reply", "event", "terminal", "control", "transient"]
ROLES: Final[Mapping[Role, str]] = {
    "request": "gets exactly one correlated reply",
    "reply": "answers the request named by `reply_to`",
    "event": "takes one credit of its scope, and waits for it",
    "terminal": "ends its scope, once, and needs no credit",
    "control": "belongs to the connection, and goes before everything else",
    "transient": "takes one credit as well, and is dropped where there is none",
}
_MOST_TOLD: Final = 3


class Payload(BaseModel):
    """Base of payloads: unknown fields are ignored, values are not converted, nothing is changed afterwards."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Empty(Payload):
    """Nothing."""


class Flow(Payload):
    """How the one who opens a scope wants to be sent its events."""

    window: int | None = None
    """Events that may be under way before more are granted; the server's usual window when left out."""
    policy: Literal["pause", "fail"] = "pause"
    """What happens when the reader does not keep up: the source waits, or the scope ends with `too_slow`."""


@dataclass(frozen=True, kw_only=True)
class MessageType:
    """One type of message.

    `kinds`: the kinds of scopes that it lives in. `sender`: who may send it. `opens`: it opens its scope, as its first
    message. `settles`: sent into a scope that is over or was never there, it is answered with `ack` all the same.
    `fails`: the terminal that says `{code, message, retryable}` when a scope of this kind fails. `replies`: what
    answers it, beside `nack`. `about`: one sentence for the reference.
    """

    name: str
    kinds: frozenset[str]
    sender: Literal["client", "server", "both"]
    role: Role
    payload: type[BaseModel]
    about: str
    opens: bool = False
    settles: bool = False
    fails: bool = False
    replies: tuple[str, ...] = ()

    @cached_property
    def spends(self) -> bool:
        """Whether it takes credit of its scope."""
        return self.role in ("event", "transient")

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Checks payloads of this type; made when the first one comes."""
        return TypeAdapter(self.payload)

    def may_send(self, side: Side) -> bool:
        """Whether that side sends messages of this type."""
        return side in self._senders

    @cached_property
    def _senders(self) -> tuple[str, ...]:
        return ("client", "server") if self.sender == "both" else (self.sender,)

    @cached_property
    def _validate(self) -> Callable[[Mapping[str, Any]], Any]:
        return self.adapter.validator.validate_python

    def check(self, payload: Mapping[str, Any]) -> Any:
        """The payload as a value of its class. InvalidPayload names the first fields that are wrong."""
        try:
            return self._validate(payload)
        except ValidationError as error:
            found = [(_pointer(one["loc"]), str(one["msg"])) for one in error.errors(include_url=False)]
            told = "; ".join(f"{pointer}: {text}" for pointer, text in found[:_MOST_TOLD])
            raise InvalidPayload(told, extra={"pointer": found[0][0]}) from None


def _pointer(location: tuple[int | str, ...]) -> str:
    """Where it is in the envelope, as a JSON pointer (RFC 6901)."""
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in location]
    return "/".join(["/payload", *parts])


def message(
    name: str,
    kinds: str,
    sender: Literal["client", "server", "both"],
    role: Role,
    payload: type[BaseModel],
    about: str,
    **more: Any,
) -> MessageType:
    """A type of message; `kinds` are words with spaces between."""
    return MessageType(
        name=name, kinds=frozenset(kinds.split()), sender=sender, role=role, payload=payload, about=about, **more
    )  # fmt: skip
