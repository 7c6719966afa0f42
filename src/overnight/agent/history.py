"""What was said in one session of the agent: kept in a file that only grows, so that another process can go on.

One JSON document a line: a message of the model port, or a mark that everything before it was summarised. A line that
cannot be read, as a crash leaves one behind half written, is passed over and stays in the file. What a call came to is
written before the model is asked again, so whoever goes on never repeats a call that has an answer, and knows which
calls have none.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from pydantic import TypeAdapter

from overnight.agent.pairing import open_calls, paired, unknown
from overnight.errors import NotFound, SessionBusy
from overnight.ports.model import Message

INTERRUPTED: Final = (
    "The agent was interrupted before this call had an answer. Whether it did anything is not known: look before you "
    "call it again."
)
_ID: Final = re.compile(r"ses_[0-9a-f]{24}")
_MESSAGE: Final[TypeAdapter[Message]] = TypeAdapter(Message)

log = structlog.get_logger(__name__)


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
        self._held: int | None = None
        self._torn = False
        """The file ends in the middle of a line."""

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
        for line in history._whole(path):
            history._take(line)
        history._messages = list(paired(history._messages, INTERRUPTED))
        return history

    def hold(self) -> None:
        """Keep other processes from writing it, until `release` or the end of this one. Raises SessionBusy."""
        if self._held is not None:
            return
        held = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            raise SessionBusy(f"another process works in the session {self.id}") from None
        self._held = held

    def release(self) -> None:
        """Let others write it; idempotent."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

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
        calls = open_calls(self._messages)
        if calls:
            self.add(*unknown(calls, text))

    def _write(self, *lines: object) -> None:
        data = b"\n" * self._torn + b"".join(orjson.dumps(line) + b"\n" for line in lines)
        self._torn = False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.folder / "history.jsonl", flags, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _whole(self, path: Path) -> Iterator[Mapping[str, Any]]:
        """The lines that can be read."""
        data = path.read_bytes()
        self._torn = not data.endswith(b"\n")
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                yield _checked(line)
            except (ValueError, TypeError) as error:
                log.warning(
                    "agent.history_line_unreadable", session=self.id, line=number, error=str(error)[:200]
                )


def _checked(line: bytes) -> Mapping[str, Any]:
    """Raises ValueError or TypeError for what `_take` could not take."""
    found = orjson.loads(line)
    if not isinstance(found, dict):
        raise TypeError("a line is one JSON object")
    if "spent" in found:
        float(found["spent"])
    elif "compacted" in found:
        for message in found["compacted"]:
            _MESSAGE.validate_python(message)
    elif "session" not in found:
        _MESSAGE.validate_python(found)
    return found
