"""What agents do and ask, as steps: tool calls, commands, approvals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from overnight.domain.approval import ALLOWING
from overnight.domain.event import canonical
from overnight.wire.responses import items
from overnight.wire.responses.names import Data, Names
from overnight.wire.responses.speech import Words

_APPROVING: Final = ALLOWING | {"answer"}


def tool_started(names: Names, data: Data) -> list[Words]:
    """A call with its arguments. The agent carries it out: nothing is left to the client."""
    id, call_id, index = names.call("fc", data)
    name, arguments = str(data["name"]), canonical(data.get("arguments", {})).decode()
    place = {"item_id": id, "output_index": index}
    return [
        _added(index, items.function_call(id, call_id, name, "", "in_progress")),
        ("response.function_call_arguments.delta", {**place, "delta": arguments}),
        ("response.function_call_arguments.done", {**place, "name": name, "arguments": arguments}),
        _done(index, items.function_call(id, call_id, name, arguments, "completed")),
    ]


def tool_completed(names: Names, data: Data) -> list[Words]:
    """What came of a call; `incomplete` when it failed."""
    id, call_id, index = names.answer("fco", data)
    status: items.Status = "completed" if data.get("ok") else "incomplete"
    return [
        _added(index, items.function_output(id, call_id, "", "in_progress")),
        _done(index, items.function_output(id, call_id, str(data.get("output", "")), status)),
    ]


def command_started(names: Names, data: Data) -> list[Words]:
    """A command."""
    id, call_id, index = names.call("sh", data)
    command = str(data["command"])
    place = {"output_index": index, "command_index": 0}
    return [
        _added(index, items.shell_call(id, call_id, None, "in_progress")),
        ("response.shell_call_command.added", {**place, "command": ""}),
        ("response.shell_call_command.delta", {**place, "delta": command}),
        ("response.shell_call_command.done", {**place, "command": command}),
        _done(index, items.shell_call(id, call_id, command, "completed")),
    ]


def command_completed(names: Names, data: Data) -> list[Words]:
    """What a command printed, and its exit status: 0 or 1 where the backend tells only whether it went well."""
    id, call_id, index = names.answer("sho", data)
    text, code = str(data.get("output", "")), data.get("exit_code")
    whole = items.printed(text, int(not data.get("ok")) if code is None else int(code))
    place = {"item_id": id, "output_index": index, "command_index": 0}
    return [
        _added(index, items.shell_output(id, call_id, [], "in_progress")),
        ("response.shell_call_output_content.delta", {**place, "delta": {"stdout": text, "stderr": ""}}),
        ("response.shell_call_output_content.done", {**place, "output": [whole]}),
        _done(index, items.shell_output(id, call_id, [whole], "completed")),
    ]


def asked(names: Names, data: Data) -> list[Words]:
    """A question to a person: what it is about stands in the arguments."""
    options = data.get("options", [])
    allowing = frozenset(str(one["id"]) for one in options if one["kind"] in _APPROVING)
    id, index = names.question(str(data["approval_id"]), allowing), names.next()
    told = canonical({"title": data.get("title"), "context": data.get("context"), "options": options})
    item = items.approval_request(id, str(data["kind"]), told.decode())
    return [_added(index, item), _done(index, item)]


def decided(names: Names, data: Data) -> list[Words]:
    """The decision; nothing where no question was shown: a rule of the session has answered."""
    found = names.decided(str(data.get("approval_id")))
    if found is None:
        return []
    question, allowing = found
    option, index = str(data.get("option")), names.next()
    reason = str(data.get("feedback") or option)
    id = names.unique(f"{question}_decided")
    item = items.approval_response(id, question, reason, approve=option in allowing)
    return [_added(index, item), _done(index, item)]


CALLS: Final[Mapping[str, Callable[[Names, Data], list[Words]]]] = {
    "tool.started": tool_started,
    "tool.completed": tool_completed,
    "command.started": command_started,
    "command.completed": command_completed,
    "approval.requested": asked,
    "approval.resolved": decided,
    "approval.expired": decided,
}
"""By the type of the event."""


def _added(index: int, item: items.Item) -> Words:
    return "response.output_item.added", {"output_index": index, "item": item}


def _done(index: int, item: items.Item) -> Words:
    return "response.output_item.done", {"output_index": index, "item": item}
