"""What was said in one session of the agent: kept in a file that only grows, so that another process can go on.

One JSON document a line: a message of the model port, or a mark that everything before it was summarised. A line that
was cut by a crash is the last one, and is left out. What a tool call came to is written before the model is asked
again, so whoever goes on never repeats a call that has an answer, and knows which calls have none.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError

from overnight.errors import NotFound
from overnight.ports.model import AssistantMessage, Message, TextBlock, ToolMessage, UserMessage

INTERRUPTED: Final = (
    "The agent was interrupted before this call had an answer. Whether it did anything is not known: look before you "
    "call it again."
)
_ID: Final = re.compile(r"ses_[0-9a-f]{24}")
_MESSAGE: Final[TypeAdapter[Message]] = TypeAdapter(Message)


class History:
    """The messages of one session, oldest first. One process writes it at a time."""

    def __init__(self, folder: Path, id: str, cwd: str, messages: Iterable[Message] = ()) -> None:
        self.id = id
        self.cwd = cwd
        """The workspace that the session began in."""
        self.folder = folder
        """Where everything of this session is kept."""
        self.spent = 0.0
        """What its turns have cost so far, in dollars."""
        self._messages = list(messages)

    @classmethod
    def new(cls, folder: Path, cwd: str) -> History:
        """An empty one, with a folder of its own beneath `folder`."""
        history = cls(folder, f"ses_{secrets.token_hex(12)}", cwd)
        history.folder = folder / history.id
        history.folder.mkdir(parents=True, mode=0o700)
        history._write({"session": history.id, "cwd": cwd})
        return history

    @classmethod
    def load(cls, folder: Path, id: str) -> History:
        """The one that an earlier process kept. Raises NotFound."""
        path = folder / id / "history.jsonl"
        if not _ID.fullmatch(id) or not path.is_file():
            raise NotFound(f"there is no session {id[:64]!r} here")
        history = cls(folder / id, id, "")
        whole = history._mended(path)
        for line in whole:
            history._take(line)
        history.settle(INTERRUPTED)
        return history

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the model is to be told of what happened so far."""
        return tuple(self._messages)

    def add(self, *messages: Message) -> None:
        """Keep what was said; on the disk when this returns."""
        self._messages.extend(messages)
        self._write(*(_MESSAGE.dump_python(message, mode="json") for message in messages))

    def spend(self, cost_usd: float) -> None:
        """A turn has cost so much."""
        self.spent = round(self.spent + cost_usd, 9)
        self._write({"spent": self.spent})

    def compact(self, messages: Iterable[Message]) -> None:
        """From now on these stand for everything before; the file keeps that too."""
        self._messages = list(messages)
        kept = [_MESSAGE.dump_python(message, mode="json") for message in self._messages]
        self._write({"compacted": kept})

    def _take(self, line: Mapping[str, Any]) -> None:
        if "session" in line:
            self.cwd = str(line.get("cwd", ""))
        elif "spent" in line:
            self.spent = float(line["spent"])
        elif "compacted" in line:
            self._messages = [_MESSAGE.validate_python(message) for message in line["compacted"]]
        else:
            self._messages.append(_MESSAGE.validate_python(line))

    def settle(self, text: str) -> None:
        """Give each call that has no answer this one: no model goes on without."""
        answered = {message.call for message in self._messages if isinstance(message, ToolMessage)}
        open_calls = [
            call
            for message in self._messages
            if isinstance(message, AssistantMessage)
            for call in message.tool_calls
            if call.id not in answered
        ]
        if open_calls:
            self.add(
                *(
                    ToolMessage(call=call.id, name=call.name, content=(TextBlock(text=text),), is_error=True)
                    for call in open_calls
                )
            )

    def _write(self, *lines: object) -> None:
        data = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.folder / "history.jsonl", flags, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _mended(self, path: Path) -> Iterator[Mapping[str, Any]]:
        """The whole lines; what a crash has left half written is cut off, or the next line would be lost with it."""
        data = path.read_bytes()
        kept = 0
        for line in data.splitlines(keepends=True):
            try:
                found = orjson.loads(line)
                if "role" in found:
                    _MESSAGE.validate_python(found)
            except (orjson.JSONDecodeError, ValidationError, TypeError):
                break
            if not line.endswith(b"\n"):
                break
            kept += len(line)
            yield found
        if kept < len(data):
            os.truncate(path, kept)


def said_by_user(message: UserMessage) -> str:
    """The words of it."""
    return "\n".join(block.text for block in message.content if isinstance(block, TextBlock))
