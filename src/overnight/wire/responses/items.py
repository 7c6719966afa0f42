"""Items of a response, in the words of the OpenAI schema."""

from __future__ import annotations

from typing import Any, Final, Literal

Item = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete"]
SERVER: Final = "overnight"
"""The label under which approvals are asked for: the schema knows those of tool servers."""


def message(id: str, text: str | None, status: Status) -> Item:
    """What the agent said; None: it has only begun."""
    content = [] if text is None else [output_text(text)]
    return {"id": id, "type": "message", "role": "assistant", "status": status, "content": content}


def output_text(text: str) -> Item:
    """The one part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def reasoning(id: str, text: str | None, status: Status) -> Item:
    """What the backend shows of the agent's reasoning; None: it has only begun."""
    summary = [] if text is None else [summary_text(text)]
    return {"id": id, "type": "reasoning", "summary": summary, "status": status}


def summary_text(text: str) -> Item:
    """The one part of a summary."""
    return {"type": "summary_text", "text": text}


def function_call(id: str, call_id: str, name: str, arguments: str, status: Status) -> Item:
    """A tool call of the agent. The agent has carried it out itself: nobody else is to."""
    return {
        "id": id, "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, "status": status,
    }  # fmt: skip


def function_output(id: str, call_id: str, output: str, status: Status) -> Item:
    """What came of a tool call."""
    return {"id": id, "type": "function_call_output", "call_id": call_id, "output": output, "status": status}


def shell_call(id: str, call_id: str, command: str | None, status: Status) -> Item:
    """A command that the agent runs where it is."""
    action = {
        "commands": [] if command is None else [command],
        "timeout_ms": None,
        "max_output_length": None,
    }
    return {
        "id": id, "type": "shell_call", "call_id": call_id, "action": action, "environment": {"type": "local"},
        "status": status,
    }  # fmt: skip


def shell_output(id: str, call_id: str, output: list[Item], status: Status) -> Item:
    """What came of a command."""
    return {
        "id": id, "type": "shell_call_output", "call_id": call_id, "output": output, "max_output_length": None,
        "status": status,
    }  # fmt: skip


def printed(text: str, exit_code: int) -> Item:
    """What one command has printed, both streams together, and how it ended."""
    return {"stdout": text, "stderr": "", "outcome": {"type": "exit", "exit_code": exit_code}}


def approval_request(id: str, name: str, arguments: str) -> Item:
    """A question to a person."""
    return {
        "id": id, "type": "mcp_approval_request", "name": name, "arguments": arguments, "server_label": SERVER,
    }  # fmt: skip


def approval_response(id: str, request_id: str, reason: str | None, *, approve: bool) -> Item:
    """The decision."""
    return {
        "id": id, "type": "mcp_approval_response", "approval_request_id": request_id, "approve": approve,
        "reason": reason,
    }  # fmt: skip
