"""What the lease routes answer, for the description of the API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from overnight.domain.request import RequestKind
from overnight.domain.states import State


class Answer(BaseModel):
    """Further members may be there: workers pass over what they do not know."""

    model_config = ConfigDict(extra="allow")


class LeaseModel(Answer):
    """One lease. `facts` is for workers that have the engine."""

    run_id: str
    token: int
    goal: str
    mode: str
    backend: str
    model: str | None
    turn: int
    last_seq: int
    environment: dict[str, str]
    facts: dict[str, Any]


class GrantModel(Answer):
    """The answer to an offer."""

    protocol: int
    state: Literal["active", "draining", "quarantined", "gone"]
    lease_s: float
    now: int
    runs: list[LeaseModel]


class RenewalModel(Answer):
    """Which leases are lost, and the newest request to each of the others."""

    lost: list[str]
    requests: dict[str, int]
    state: str
    lease_s: float


class NewsModel(Answer):
    """What has happened since."""

    lost: list[str]
    requests: dict[str, int]
    state: str
    work: bool


class RequestModel(Answer):
    """What somebody asks of a run."""

    id: int
    kind: RequestKind
    body: dict[str, Any]


class RequestsModel(Answer):
    """Pending requests, oldest first."""

    held: bool
    state: State | None = None
    requests: list[RequestModel] = []


class ShownModel(Answer):
    """How many fragments were passed on."""

    shown: int


class ProgressModel(RequestsModel):
    """Where the run stands after a batch; `held` false: the lease has ended."""

    turn: int | None = None
    last_seq: int | None = None
