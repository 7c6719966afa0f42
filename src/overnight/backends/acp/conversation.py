"""Our half of the conversation, as one generator: it gives requests and takes answers. Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from overnight.backends.acp.rpc import METHOD_NOT_FOUND, Response
from overnight.backends.acp.script import Script
from overnight.backends.acp.shapes import as_object, objects
from overnight.backends.process.failures import by_status, by_words, shortened
from overnight.domain.update import SessionKnown, TurnOutcome, Update, Warned
from overnight.domain.values import Failure
from overnight.errors import tree

PROTOCOL: Final = 1
_AUTH_REQUIRED: Final = -32000
_OURS: Final = frozenset(kind.code for kind in tree())
"""What the built-in agent names as it is; of any other program we only know the words."""
_CLIENT: Final = {"name": "overnight", "title": "Overnight", "version": "1"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request to make; the answer comes back into the generator."""

    method: str
    params: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class HistoryEnds:
    """Nothing to say before the agent has told all that was said before this turn."""


@dataclass(slots=True)
class Notes:
    """What the conversation has found out so far."""

    session: str | None = None
    lasting: bool = False
    """Another process of the agent can go on with the session."""
    replaying: bool = False
    """The agent tells what was said before this turn."""
    prompted: bool = False
    result: Mapping[str, Any] = field(default_factory=dict)
    """The prompt's answer."""
    news: list[Update] = field(default_factory=list)


Talk = Generator[Call | HistoryEnds, Response | None, TurnOutcome]


def conversation(script: Script, notes: Notes) -> Talk:
    """The whole turn; the first call is `initialize`. Returns how the turn ended."""
    hello = yield Call("initialize", {**_offer(script), "clientInfo": _CLIENT})
    failure = _refused(hello) or _wrong_version(hello)
    if failure is not None:
        return TurnOutcome(failure=failure)
    able = as_object(_result(hello).get("agentCapabilities"))
    if script.auth in _ids(_result(hello).get("authMethods"), "id"):
        failure = _refused((yield Call("authenticate", {"methodId": script.auth})), otherwise="unauthorized")
        if failure is not None:
            return TurnOutcome(failure=failure)
    opened = yield from _open(script, notes, able)
    if isinstance(opened, Failure):
        return TurnOutcome(failure=opened)
    unset = yield from _tune(script, notes, opened)
    if unset is not None:
        return TurnOutcome(failure=unset)
    notes.prompted = True
    text = {"type": "text", "text": script.prompt}
    answer = yield Call("session/prompt", {"sessionId": notes.session, "prompt": [text]})
    failure = _refused(answer)
    if failure is not None:
        return TurnOutcome(failure=failure)
    notes.result = _result(answer)
    return TurnOutcome(stop_reason=str(notes.result.get("stopReason") or "end_turn"))


def _offer(script: Script) -> dict[str, object]:
    files = {"readTextFile": script.reads, "writeTextFile": script.writes}
    able: dict[str, object] = {"fs": files, "terminal": script.terminals}
    if script.forms:
        able["elicitation"] = {"form": {}}
    return {"protocolVersion": PROTOCOL, "clientCapabilities": able}


def _open(
    script: Script, notes: Notes, able: Mapping[str, Any]
) -> Generator[Call | HistoryEnds, Response | None, Mapping[str, Any] | Failure]:
    """A session: the one to go on with, else a new one. Returns what the agent says about it."""
    place: dict[str, object] = {"cwd": script.workspace, "mcpServers": [], **script.session}
    resumes = "resume" in as_object(able.get("sessionCapabilities"))
    notes.lasting = resumes or bool(able.get("loadSession"))
    if script.resume is not None and not notes.lasting:
        return _lost(notes, "the agent cannot go on with a session")
    if script.resume is not None:
        answer: Response | None = None
        if resumes:
            answer = yield Call("session/resume", {**place, "sessionId": script.resume})
        if not resumes or _is_unknown(answer):  # some offer it and know nothing of it
            notes.replaying = True
            answer = yield Call("session/load", {**place, "sessionId": script.resume})
        if (failure := _refused(answer)) is not None:
            return _lost(notes, failure.message)
        if notes.replaying and script.history_ends_with is not None:
            yield HistoryEnds()
        notes.replaying, notes.session = False, script.resume
    else:
        answer = yield Call("session/new", place)
        if (failure := _refused(answer)) is not None:
            return failure
        session = _result(answer).get("sessionId")
        if not isinstance(session, str) or not session:
            return Failure(code="protocol_error", message="the agent gave its session no id", retryable=True)
        notes.session = session
    if notes.lasting:
        notes.news.append(SessionKnown(state=state_of(script, notes.session, script.cost_before)))
    return _result(answer)


def _tune(
    script: Script, notes: Notes, opened: Mapping[str, Any]
) -> Generator[Call | HistoryEnds, Response | None, Failure | None]:
    """Mode, model and effort. What a program does not know is told; only a mode that is refused ends the turn."""
    if script.mode is not None:
        call = _setting(opened, notes, "mode", script.mode)
        failure = _refused((yield call)) if isinstance(call, Call) else call
        if failure is not None:
            message = f"the agent does not take the mode {script.mode}: {failure.message}"
            return Failure(code="mode_refused", message=message, retryable=False)
    for name, value in (("model", script.model), ("effort", script.effort)):
        if value is None:
            continue
        call = _setting(opened, notes, name, value)
        failure = _refused((yield call)) if isinstance(call, Call) else call
        if failure is not None:
            message = f"the agent works with {name} of its own choice: {failure.message}"
            notes.news.append(Warned(code=f"{name}_not_set", message=message, retryable=False))
    return None


def _setting(opened: Mapping[str, Any], notes: Notes, name: str, value: str) -> Call | Failure:
    """The request that sets it, by whichever of the protocol's ways the agent offers."""
    session = {"sessionId": notes.session}
    categories = {"mode": "mode", "model": "model", "effort": "thought_level"}
    if name in {"mode", "model"}:
        listed = as_object(opened.get(f"{name}s"))
        if value in _ids(listed.get(f"available{name.capitalize()}s"), "id" if name == "mode" else "modelId"):
            key = "modeId" if name == "mode" else "modelId"
            return Call(f"session/set_{name}", {**session, key: value})
    for option in objects(opened.get("configOptions")):
        if (option.get("id") == name or option.get("category") == categories[name]) and value in _choices(
            option
        ):
            call = {**session, "configId": option.get("id"), "value": value}
            return Call("session/set_config_option", call)
    return Failure(code="unknown_setting", message=f"it does not offer {value}")


def _choices(option: Mapping[str, Any]) -> Iterator[str]:
    for choice in objects(option.get("options")):
        if "options" in choice:
            yield from _choices(choice)
        else:
            yield str(choice.get("value"))


def state_of(script: Script, session: str | None, cost: float) -> dict[str, object]:
    """What the next turn needs."""
    return {"session_id": session, "cwd": script.workspace, "cost": cost}


def failure_of(error: Mapping[str, Any], *, otherwise: str = "turn_failed") -> Failure:
    """What an error answer says: by the words, and by a code that is the status of a model service."""
    code, data = error.get("code"), error.get("data")
    said = [str(error.get("message") or "")]
    details = data if isinstance(data, Mapping) else {"message": data}
    said += [str(details[name]) for name in ("message", "details", "errorKind") if details.get(name)]
    message = shortened(": ".join(dict.fromkeys(filter(None, said))) or "the agent gave no reason")
    ours = as_object(details.get("overnight"))
    if ours.get("code") in _OURS:
        return Failure(code=str(ours["code"]), message=message, retryable=ours.get("retryable") is True)
    if isinstance(code, int) and 400 <= code < 600:
        return by_status(code, message)
    if code == _AUTH_REQUIRED:
        return Failure(code="unauthorized", message=message)
    return by_words(message, otherwise=otherwise)


def _refused(answer: Response | None, *, otherwise: str = "turn_failed") -> Failure | None:
    error = answer.error if answer is not None else None
    return None if error is None else failure_of(error, otherwise=otherwise)


def _is_unknown(answer: Response | None) -> bool:
    return answer is not None and answer.error is not None and answer.error.get("code") == METHOD_NOT_FOUND


def _wrong_version(hello: Response | None) -> Failure | None:
    spoken = _result(hello).get("protocolVersion")
    if spoken == PROTOCOL:
        return None
    message = f"the agent speaks version {spoken} of the protocol, not {PROTOCOL}"
    return Failure(code="protocol_version", message=message, retryable=False)


def _lost(notes: Notes, why: str) -> Failure:
    """The next attempt begins a new session, and is told what was said before."""
    notes.news.append(SessionKnown(state={}))
    return Failure(
        code="session_lost", message=f"the agent's session cannot be taken up: {why}", retryable=True
    )


def _result(answer: Response | None) -> Mapping[str, Any]:
    return as_object(answer.result if answer is not None else None)


def _ids(value: object, key: str) -> set[object]:
    return {entry.get(key) for entry in objects(value)}
