"""Takes secrets out of text: known values in the forms that programs print them in, and shapes that only secrets have.

One `Redactor` is made for a run; the recorder, the live deltas and the logging sink all use it.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
import re2

MARK: Final = "[redacted]"
"""Stands where a secret was."""
MIN_LENGTH: Final = 6
"""Shorter values are not looked for: they would blot out ordinary words."""
HOLD: Final = 4096
"""How many characters a stream holds back at most."""
PEM_LIMIT: Final = 16_384
"""A private key block without an end hides at most this much."""
KEY_END: Final = 80
"""Characters that the end of a key block takes at most."""

_PEM_BEGIN: Final = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_PEM_END: Final = r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_WHOLE: Final = (
    r"\bsk-[A-Za-z0-9_-]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{16,}",
    r"\bgithub_pat_[A-Za-z0-9_]{16,}",
    r"\bgl(?:pat|rt|dt)-[A-Za-z0-9_-]{16,}",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bAIza[0-9A-Za-z_-]{30,}",
    r"\bxox[a-z]-[A-Za-z0-9-]{10,}",
    r"\bovn_[A-Za-z0-9_-]{20,}",
    r"\bova_run_[0-9a-z]{20,32}(?:\.[0-9]{1,15}){1,2}\.[0-9a-f]{16,}",
    r"\beyJ[A-Za-z0-9_-]{8,1024}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
)
_KEPT_HEAD: Final = (
    r"\b[Bb][Ee][Aa][Rr][Ee][Rr][ \t]+(?P<bearer>[A-Za-z0-9._~+/-]{8,}=*)",
    r"\b[Bb]asic[ \t]+(?P<basic>[A-Za-z0-9+/-]{12,}=*)",
    r"://[^/\s:@\[\]]{0,256}:(?P<userinfo>[^/\s@\[\]]{1,256})@",
    r"[?&;][A-Za-z0-9_-]{0,40}(?:password|passwd|secret|token|key|signature)=(?P<query>[^\s&;#\"'<>\[\]]{3,4096})",
    r"\b[Pp][Aa][Ss][Ss][Ww](?:[Oo][Rr])?[Dd]=(?P<assigned>[^\s&;#\"'<>\[\]]{3,4096})",
)
_KEY_TEXT: Final = re.compile(rf"[A-Za-z0-9+/=\s\\]{{0,{PEM_LIMIT}}}")
_OPEN_PEM: Final = re.compile(_PEM_BEGIN)
_CLOSE_PEM: Final = re.compile(_PEM_END)
_MAY_START: Final = re.compile(
    r"(?i:\b(?:bearer|basic))[ \t]+\S{0,4096}\Z|-----BEGIN[A-Z0-9 ]{0,60}-{0,5}\Z|\S{1,4096}\Z"
)


class Redactor:
    """Replaces secrets by a mark. Cheap where there are none: one linear pass decides.

    `values` are looked for as they are, line by line where they have several, and in their JSON, URL, base64 (at any
    alignment) and hexadecimal forms. Values shorter than `MIN_LENGTH` are ignored.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = sorted(
            {form for value in values for form in _forms(value)}, key=lambda form: (-len(form), form)
        )
        self._longest = max((len(form) for form in forms), default=0)
        self._starts = frozenset(form[0] for form in forms)
        self._known = tuple(forms)
        self._exact, self._quick = _compiled(self._known)

    def text(self, text: str) -> str:
        """`text` with every secret replaced; the same object when there is none."""
        if not self._suspect(text):
            return text
        return self._exact.sub(_replace, _without_keys(text) if "PRIVATE KEY" in text else text)

    def json(self, document: Any) -> Any:
        """`document` with every string in it redacted, keys too."""
        if isinstance(document, str):
            return self.text(document)
        if isinstance(document, Mapping):
            return {self.text(str(key)): self.json(value) for key, value in document.items()}
        if isinstance(document, list | tuple):
            return [self.json(item) for item in document]
        return document

    def stream(self) -> RedactingStream:
        """A redactor for one text that arrives in pieces."""
        return RedactingStream(self)

    def _suspect(self, text: str) -> bool:
        if len(text) < MIN_LENGTH:
            return False
        return self._quick.search(text.encode("utf-8", "replace")) is not None

    def _unfinished(self, text: str) -> int:
        """Where the end of `text` begins that could be the start of a secret; its length if there is none."""
        match = _MAY_START.search(text, max(0, len(text) - HOLD))
        cut = match.start() if match else len(text)
        if self._longest:
            cut = min(cut, self._partial(text))
        for found in self._exact.finditer(text, max(0, cut - PEM_LIMIT)):
            if found.start() < cut < found.end():
                return found.start()
        return cut

    def _partial(self, text: str) -> int:
        """Where the longest end of `text` begins that is the start of a known form."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start] in self._starts:
                rest = text[start:]
                if any(form.startswith(rest) for form in self._known):
                    return start
        return len(text)


class RedactingStream:
    """Redacts a text that arrives in pieces, wherever it was cut. Holds back an end that may become a secret."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""
        self._swallowed: int | None = None
        """Characters of a private key block that has begun and not ended."""

    @property
    def holds(self) -> bool:
        """Whether an end is held back."""
        return bool(self._held)

    def feed(self, piece: str) -> str:
        """What can be shown after this piece. Complete lines come out at once."""
        text = self._held + piece
        self._held = ""
        if self._swallowed is not None:
            text = self._swallow(text)
        if "-----BEGIN" in text and (begin := _open_key(text)):
            out = self._redactor.text(text[: begin.start()]) + MARK
            self._swallowed = 0
            return out + self._redactor.text(self._swallow(text[begin.end() :]))
        if not text or text[-1] == "\n":
            return self._redactor.text(text)
        cut = self._redactor._unfinished(text)  # noqa: SLF001  one class in two parts
        self._held = text[cut:]
        return self._redactor.text(text[:cut])

    def finish(self) -> str:
        """What was held back; nothing follows."""
        held = self._held if self._swallowed is None else ""
        self._held, self._swallowed = "", None
        return self._redactor.text(held)

    def skip(self) -> int:
        """The next pieces are left out: drop what is held back, since its other half will not be seen.

        How many bytes of UTF-8 were dropped.
        """
        held, self._held = self._held, ""
        return len(held.encode("utf-8", "replace"))

    def _swallow(self, text: str) -> str:
        """Hide `text` up to the end of the key block; what follows the end comes back."""
        swallowed = self._swallowed or 0
        if end := _CLOSE_PEM.search(text):
            self._swallowed = None
            return text[end.end() :]
        if swallowed + len(text) > PEM_LIMIT:
            self._swallowed = None
            return text[PEM_LIMIT - swallowed :]
        self._held = text[-KEY_END:]  # its end may be cut in two
        self._swallowed = swallowed + len(text) - len(self._held)
        return ""


def _without_keys(text: str) -> str:
    """`text` with private key blocks replaced; one without an end hides what looks like key text. Linear."""
    out, at, end = [], 0, None
    for begin in _OPEN_PEM.finditer(text):
        if begin.start() < at:
            continue
        if end is None or end[0] < begin.end():
            close = _CLOSE_PEM.search(text, begin.end())
            end = close.span() if close else (len(text) + PEM_LIMIT + 1, 0)
        out += [text[at : begin.start()], MARK]
        if end[0] - begin.end() <= PEM_LIMIT:
            at = end[1]
        else:
            run = _KEY_TEXT.match(text, begin.end())
            at = run.end() if run else begin.end()
    return "".join([*out, text[at:]])


def _open_key(text: str) -> re.Match[str] | None:
    """The first key block that has no end in `text`."""
    at = 0
    while begin := _OPEN_PEM.search(text, at):
        close = _CLOSE_PEM.search(text, begin.end())
        if close is None:
            return begin
        at = close.end()
    return None


def _replace(match: re.Match[str]) -> str:
    name = match.lastgroup
    if name is None:
        return MARK
    start, end = match.span(name)
    whole = match.group()
    return whole[: start - match.start()] + MARK + whole[end - match.start() :]


@functools.lru_cache(maxsize=32)
def _compiled(forms: tuple[str, ...]) -> tuple[re.Pattern[str], Any]:
    """The judge and the cheap look before it; most runs share theirs, because they bring no secrets of their own."""
    parts = [*(re.escape(form) for form in forms), *_KEPT_HEAD, *_WHOLE]
    return re.compile("|".join(f"(?:{part})" for part in parts)), _quick(forms)


def _quick(forms: Iterable[str]) -> Any:
    """One linear automaton that says whether anything at all could match; it may say yes too often, never no."""
    options = re2.Options()
    options.max_mem = 64 << 20
    options.log_errors = False
    options.never_capture = True
    heads = [re.sub(r"\(\?P<\w+>", "(?:", part) for part in _KEPT_HEAD]
    parts = [_PEM_BEGIN, *heads, *_WHOLE, *(re2.escape(form) for form in forms)]
    return re2.compile("|".join(f"(?:{_shorter(part)})" for part in parts).encode(), options)


def _shorter(part: str) -> str:
    """Counted repeats cost the automaton states and the exact pattern judges anyway: ask for the first few only."""
    return re.sub(r"\{(\d+),\d*\}", lambda count: f"{{{min(int(count[1]), 8)},}}", part)


def _forms(value: str) -> set[str]:
    """The forms in which a program may print `value`."""
    found: set[str] = set()
    for part in {value.strip(), *(line.strip() for line in value.splitlines())}:
        if len(part) < MIN_LENGTH:
            continue
        raw = part.encode("utf-8", "replace")
        found |= {
            part,
            orjson.dumps(raw.decode()).decode()[1:-1],
            _json_ascii(part),
            raw.hex(),
            raw.hex().upper(),
        }
        percent = _percent(raw)
        found |= {percent, percent.replace("%20", "+"), re.sub("%..", lambda code: code[0].lower(), percent)}
        found |= _base64_forms(raw)
    return found


def _json_ascii(text: str) -> str:
    escaped = orjson.dumps(text.encode("utf-8", "replace").decode()).decode()[1:-1]
    return "".join(c if c.isascii() else "".join(_units(c)) for c in escaped)


def _units(character: str) -> list[str]:
    units = character.encode("utf-16-be")
    return [f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)]


def _percent(raw: bytes) -> str:
    safe = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    return "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in raw)


def _base64_forms(raw: bytes) -> set[str]:
    """The middle of the base64 text of anything that contains `raw`, for each of the three alignments."""
    found = set()
    for lead in range(3):
        encoded = base64.b64encode(b"\0" * lead + raw).decode().rstrip("=")
        skip = (0, 2, 3)[lead]
        partial = (lead + len(raw)) % 3 != 0
        core = encoded[skip : -1 if partial else None]
        if len(core) >= MIN_LENGTH:
            found |= {core, core.replace("+", "-").replace("/", "_")}
    return found
