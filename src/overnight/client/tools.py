"""Tools in Python: a decorator that makes one of any function, for `overnight tools serve FILE` or a host of one's own.

    from overnight.client.tools import Say, tool

    @tool(destructive=True)
    async def deploy(target: str, dry_run: bool = True, say: Say = None) -> str:
        "Bring the current build to a target."
        await say("building", percent=10)
        return f"{target} is up"

The schema comes from the parameters' annotations, the description from the docstring. A parameter annotated `Say` is
not the model's: it gets a function that tells how far the work is. Plain functions run in a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from overnight.client.socket.tools import Answer, Hear, Progress
from overnight.errors import ArgumentsRefused, InvalidInput

__all__ = ["Answer", "FunctionTool", "Say", "collect", "tool"]
_MARK: Final = "__overnight_tool__"


class Say(Protocol):
    """Tells how far a tool is: a piece of what it says, a percentage, a word about what it does."""

    def __call__(
        self, partial: str | None = None, *, percent: float | None = None, status: str | None = None
    ) -> Awaitable[None]:
        """Returns once it may go on."""
        ...


class FunctionTool:
    """A function as a tool of a host."""

    def __init__(self, function: Callable[..., Any], meta: Mapping[str, Any]) -> None:
        self.function = function
        hints = get_type_hints(function, include_extras=True)
        self._say = next((name for name, hint in hints.items() if hint is Say), None)
        self._model = _model_of(function, hints)
        schema = self._model.model_json_schema()
        schema.pop("title", None)
        self._meta = {**meta, "parameters": schema, "streaming": self._say is not None}

    @property
    def meta(self) -> Mapping[str, Any]:
        """See `client.socket.tools.Tool`."""
        return self._meta

    async def run(self, arguments: Mapping[str, Any], hear: Hear) -> Answer:
        """See `client.socket.tools.Tool`."""
        try:
            given = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ArgumentsRefused(str(error)) from None
        named = {name: getattr(given, name) for name in type(given).model_fields}
        loop = asyncio.get_running_loop()

        async def say(
            partial: str | None = None, *, percent: float | None = None, status: str | None = None
        ) -> None:
            await hear(Progress(percent=percent, partial=partial, status=status))

        if inspect.iscoroutinefunction(self.function):
            return _answer_of(await self.function(**named, **({self._say: say} if self._say else {})))

        def say_from_thread(*given: Any, **more: Any) -> None:
            asyncio.run_coroutine_threadsafe(say(*given, **more), loop).result()

        told = {self._say: say_from_thread} if self._say else {}
        return _answer_of(await asyncio.to_thread(self.function, **named, **told))


def tool(
    function: Callable[..., Any] | None = None, *, name: str | None = None, description: str | None = None,
    destructive: bool = False, permissions: tuple[str, ...] = (), version: str = "1.0.0",
) -> Any:  # fmt: skip
    """Mark a function as a tool. `destructive`, or any `permissions`: people are asked before an agent calls it."""

    def mark(found: Callable[..., Any]) -> Callable[..., Any]:
        meta = {
            "name": name or found.__name__, "description": description or inspect.getdoc(found) or "",
            "destructive": destructive, "permissions": list(permissions), "version": version,
        }  # fmt: skip
        setattr(found, _MARK, FunctionTool(found, meta))
        return found

    return mark if function is None else mark(function)


def collect(names: Mapping[str, Any]) -> dict[str, FunctionTool]:
    """The tools among the names of a module. Raises InvalidInput when two have the same name."""
    found: dict[str, FunctionTool] = {}
    for value in names.values():
        made = getattr(value, _MARK, None)
        if isinstance(made, FunctionTool):
            known = found.setdefault(str(made.meta["name"]), made)
            if known is not made:
                raise InvalidInput(f"two tools are named {made.meta['name']}")
    return found


def _model_of(function: Callable[..., Any], hints: Mapping[str, Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if hints.get(name) is Say:
            continue
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise InvalidInput(f"{function.__name__}: a tool's parameters all have names of their own")
        if name not in hints:
            raise InvalidInput(f"{function.__name__}: the parameter {name} has no annotation")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
    return create_model(f"{function.__name__}_arguments", __config__=config, **fields)


def _answer_of(value: Any) -> Answer:
    if isinstance(value, Answer):
        return value
    if isinstance(value, str):
        return Answer(content=[{"type": "text", "text": value}])
    if value is None:
        return Answer(content=[{"type": "text", "text": "done"}])
    plain = TypeAdapter(Any).dump_python(value, mode="json")
    return Answer(content=[{"type": "text", "text": json.dumps(plain)}], details=plain)
