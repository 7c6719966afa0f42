"""The text view: nothing that drives a terminal, reorders or hides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.text import cut_utf8, first_line, plain, tail_utf8


@pytest.mark.parametrize(
    "text, shown",
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;Zm9v\x07", ""),
        ("\x1bP1$r\x1b\\a", "a"),
        ("\x9b31mx", "x"),
        ("\x1b(Bx\x1bcy", "xy"),
        ("a\x00b\x07c\x08d\x7fe", "abcde"),
        ("a\u202eb\u2066c\ufeffd", "abcd"),
        ("tab\tkept\nline", "tab\tkept\nline"),
        ("10%\r20%\r\nend\r", "10%\n20%\nend\n"),
        ("\x1b]0;never closed\nhidden? no", "0;never closed\nhidden? no"),
        ("\x1b[38;5;" + "1" * 300 + "mx", "[38;5;" + "1" * 300 + "mx"),
        ("\x1b", ""),
        ("\x1b[", "["),
        ("日本語 é 👩‍👩‍👧", "日本語 é 👩‍👩‍👧"),
    ],
)  # fmt: skip
def test_what_is_left(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(st.sampled_from("\x1b[]0;m\x07\x9b\x9d\\Pa1\n\r\t\u202e\x00(?"), max_size=40))
def test_nothing_that_controls_is_left(text: str) -> None:
    shown = plain(text)
    assert not any(
        (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) <= 0x9F or c == "\u202e" for c in shown
    )
    assert plain(shown) == shown


@given(st.text(max_size=50), st.integers(0, 60))
def test_cuts_fall_between_characters(text: str, limit: int) -> None:
    head, tail = cut_utf8(text, limit), tail_utf8(text, max(limit, 1))
    assert len(head.encode()) <= limit
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(tail.encode()) <= max(limit, 1)


def test_the_first_line_that_says_something() -> None:
    assert first_line("\n  \n \x1b[1m hello   world \nnext") == "hello world"
    assert first_line("x" * 300) == "x" * 199 + "…"
    assert first_line("") == ""
