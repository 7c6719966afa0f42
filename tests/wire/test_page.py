"""Cursors of lists: what this server made comes back, nothing else is taken."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import InvalidCursor
from overnight.wire import page

numbers = st.integers(0, 10**18 - 1)


@given(numbers, numbers)
def test_a_cursor_comes_back_as_its_position(created_at: int, pk: int) -> None:
    cursor = page.encode((created_at, pk))
    assert cursor is not None
    assert cursor.isascii()
    assert "=" not in cursor
    assert page.decode(cursor) == (created_at, pk)


def test_no_cursor_is_no_position() -> None:
    assert page.encode(None) is None
    assert page.decode(None) is None


@given(st.text(max_size=40) | st.binary(max_size=30).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_whatever_is_given_either_was_made_here_or_is_refused(text: str) -> None:
    try:
        position = page.decode(text)
    except InvalidCursor:
        return
    assert page.encode(position) == text


@pytest.mark.parametrize(
    "raw", [b"1:1", b"2:1:1", b"1:-1:1", b"1:01:1", b"1:1:1:1", b"1:1:1\n", b"", b"1:" + b"9" * 30 + b":1"]
)
def test_near_misses_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidCursor):
        page.decode(base64.urlsafe_b64encode(raw).decode().rstrip("="))
