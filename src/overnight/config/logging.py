"""One sink for every log line, ours and the libraries': bound ids in, secrets and control characters out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from overnight.domain.redaction import Redactor
from overnight.domain.text import plain

QUIET: Final = (
    "alembic",
    "asyncio",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "sqlalchemy",
    "uvicorn",
    "uvicorn.access",
    "watchfiles",
    "websockets",
)
"""Libraries of whose lines only warnings and worse are written."""

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]


def configure(
    level: Level = "info",
    format: Format = "auto",
    file: Path | None = None,
    *,
    redactor: Redactor | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send structlog's and the standard library's lines to one place; may be called again, the last call counts.

    `auto` is console on a terminal and JSON otherwise; a `file` (mode 0600, reopened after rotation) is always JSON.
    Ids bound with `structlog.contextvars` are on every line. Raises OSError when the file cannot be opened.
    """
    target = stream or sys.stderr
    colours = file is None and target.isatty() and not os.environ.get("NO_COLOR")
    console = file is None and (format == "console" or (format == "auto" and target.isatty()))
    sink: logging.Handler = _StreamSink(target) if file is None else _FileSink(file)
    sink.setFormatter(_formatter(redactor or Redactor(), console=console, colours=colours))
    _replace_sink(sink)
    logging.getLogger().setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # A cached logger would keep an earlier configuration.
        cache_logger_on_first_use=False,
    )


def _shared() -> list[Processor]:
    # `filter_by_level` is not here: records of the standard library come without a logger, and it would fail on them.
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
    ]


def _formatter(redactor: Redactor, *, console: bool, colours: bool) -> logging.Formatter:
    renderer: Processor = structlog.dev.ConsoleRenderer(colors=colours) if console else _json
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _Cleaner(redactor), renderer],
    )


class _Cleaner:
    """The last word on every value: no secret, no control character, and one line unless it is a traceback."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {
            self._line(str(key)): self._traceback(value)
            if key in {"exception", "stack"}
            else self._value(value)
            for key, value in event.items()
        }

    def _value(self, value: object) -> object:
        if (
            value is None
            or isinstance(value, bool | float)
            or (isinstance(value, int) and abs(value) < 1 << 63)
        ):
            return value
        if isinstance(value, Mapping):
            return {self._line(str(key)): self._value(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(item) for item in value]
        return self._line(value if isinstance(value, str) else str(value))

    def _line(self, text: str) -> str:
        return self._clean(text).replace("\n", "\\n")

    def _traceback(self, value: object) -> str:
        return self._clean(str(value))

    def _clean(self, text: str) -> str:
        # Redacted on both sides of the stripping: an escape inside a secret must not save it.
        whole = text.encode("utf-8", "replace").decode()
        return self._redactor.text(plain(self._redactor.text(whole)))


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    head = {key: event.pop(key, None) for key in ("timestamp", "level", "event")}
    return orjson.dumps({**head, **event}, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class _Silent(logging.Handler):
    """A log line that cannot be written is dropped: logging never stops the program, and never writes elsewhere."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the library's name
        del record


class _StreamSink(_Silent, logging.StreamHandler[Any]):
    """Lines to a stream."""


class _FileSink(_Silent, WatchedFileHandler):
    """Lines to a file of the user's own."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def _replace_sink(sink: logging.Handler) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        # Also what `logging.basicConfig` left: its lines would appear twice, unredacted.
        if isinstance(handler, _Silent) or type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
            handler.close()
    root.addHandler(sink)
