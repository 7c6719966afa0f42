"""Bodies of requests, beside `RunSpec` itself. Unknown fields are refused everywhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from overnight.clock import from_rfc3339
from overnight.domain.spec import LimitsSpec, Mode, Name
from overnight.domain.states import State
from overnight.domain.token import TokenKind
from overnight.errors import InvalidInput
from overnight.ports.tables import RunFilter
from overnight.wire.v1.document import Document

MAX_IDS = 1000
"""Runs that a bulk action may name."""
_LABEL_SHAPE = r"^[^=]{1,200}=[^\x00]{1,200}$"


def _folded(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def words(value: object) -> object:
    """Lists may also be written with commas: `queued,paused`."""
    listed = _listed(value)
    if not isinstance(listed, list):
        return listed
    return [word for item in listed for word in (item.split(",") if isinstance(item, str) else [item])]


Text = Annotated[str, StringConstraints(max_length=200_000)]
Words = Annotated[str, StringConstraints(max_length=2000)]
RunIdText = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Action = Annotated[
    Literal["pause", "resume", "cancel", "steer"],
    BeforeValidator(_folded, json_schema_input_type=Literal["pause", "resume", "cancel", "steer"]),
]
LabelFilter = Annotated[str, StringConstraints(pattern=_LABEL_SHAPE)]


class WorkerBody(Document):
    """`POST /workers/{id}/drain`, `resume` and `release`."""

    reason: Words | None = None


class ControlBody(Document):
    """`POST /runs/{id}/control`."""

    action: Action
    reason: Words | None = None
    text: Text | None = None
    when: Literal["now", "after_turn"] | None = None
    limits: LimitsSpec | None = None

    @model_validator(mode="after")
    def _text_belongs_to_steer(self) -> ControlBody:
        if self.action == "steer" and not (self.text or "").strip():
            raise ValueError("a steer needs a text")
        if self.action != "steer" and self.text is not None:
            raise ValueError("only a steer carries a text")
        return self


class FilterBody(Document):
    """Which runs: the same names as the query of `GET /runs`."""

    state: Annotated[list[State], BeforeValidator(words), Field(max_length=10)] = Field(default_factory=list)
    mode: Mode | None = None
    backend: Name | None = None
    session: RunIdText | None = None
    label: Annotated[list[LabelFilter], BeforeValidator(_listed), Field(max_length=50)] = Field(
        default_factory=list
    )
    since: Annotated[str, StringConstraints(max_length=40)] | None = None
    text: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None

    def to_filter(self, owner: str, *, ids: tuple[str, ...] = ()) -> RunFilter:
        """The port's filter, for one owner. Raises InvalidInput when `since` is no RFC 3339 time."""
        return RunFilter(
            owner=owner,
            states=tuple(self.state),
            mode=self.mode,
            backend=self.backend,
            session_id=self.session,
            labels=dict(_pair(label) for label in self.label),
            since=None if self.since is None else moment("since", self.since),
            text=self.text,
            ids=ids,
        )


class BulkControlBody(Document):
    """`POST /runs/control`: `ids` or `filter`, never both; `expect_count` guards against acting on too many."""

    ids: Annotated[list[RunIdText], Field(min_length=1, max_length=MAX_IDS)] | None = None
    filter: FilterBody | None = None
    action: Action
    reason: Words | None = None
    text: Text | None = None
    when: Literal["now", "after_turn"] | None = None
    limits: LimitsSpec | None = None
    expect_count: Annotated[int, Field(ge=0, le=MAX_IDS)] | None = None

    @model_validator(mode="after")
    def _one_way_to_name_runs(self) -> BulkControlBody:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("name the runs either by `ids` or by `filter`")
        if self.filter is not None and self.expect_count is None:
            raise ValueError("a `filter` needs `expect_count`: the number of runs that you expect to act on")
        ControlBody(action=self.action, text=self.text)
        return self


class ApprovalChanges(Document):
    """What a decision changes. `limits`: of a run whose budget is spent; null takes a limit away."""

    limits: LimitsSpec | None = None


class ResolveBody(Document):
    """`POST /approvals/{id}/resolve`. `digest` says what was seen: another action is not decided with it."""

    option: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    feedback: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    changes: ApprovalChanges | None = None


class TokenBody(Document):
    """`POST /tokens`."""

    name: Annotated[
        str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$")
    ]
    kind: TokenKind = "user"
    owner: Annotated[str, StringConstraints(pattern=r"^usr_[a-z0-9_]{1,40}$")] | None = None
    expires_in_s: Annotated[int, Field(ge=1, le=315_360_000)] | None = None


_Secret = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class LoginBody(Document):
    """`POST /login`: the one-time code that `overnight up` printed or a user's token, or the code of a shared link."""

    code: _Secret | None = None
    share: _Secret | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> LoginBody:
        if (self.code is None) == (self.share is None):
            raise ValueError("send either `code` or `share`")
        return self


def moment(name: str, text: str) -> int:
    """Wall milliseconds of an RFC 3339 time. Raises InvalidInput naming the field."""
    try:
        found = from_rfc3339(text)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{name}: {text[:40]!r} is no RFC 3339 time with an offset") from None
    return max(0, min(found, (1 << 62)))


def _pair(label: str) -> tuple[str, str]:
    name, _, value = label.partition("=")
    return name, value
