"""Lines and their offsets are the same however the bytes arrive, and wherever reading begins again."""

from hypothesis import given
from hypothesis import strategies as st

from overnight.backends.process.framing import Line, LineFramer

CONTENT = st.lists(
    st.sampled_from([b"\n", b"a", b"bc", b"\r\n", b"\xff\xc3", b"\x00", b"long piece of text"])
)


def frame(pieces: list[bytes], *, offset: int = 0, max_line: int = 1 << 20) -> list[Line]:
    framer = LineFramer(offset=offset, max_line=max_line)
    lines = [line for piece in pieces for line in framer.feed(piece)]
    last = framer.finish()
    return lines + ([last] if last else [])


@st.composite
def cut(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Some content, and the same content in pieces."""
    content = b"".join(draw(CONTENT))
    cuts = sorted(draw(st.lists(st.integers(0, len(content)))))
    return content, [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]


@given(cut())
def test_pieces_make_no_difference(given_cut: tuple[bytes, list[bytes]]) -> None:
    content, pieces = given_cut
    lines = frame(pieces)
    assert lines == frame([content])
    assert b"".join(line.data for line in lines) == content
    assert (
        [line.data for line in lines] == content.splitlines(keepends=True)
        or b"\r" in content
        or b"\x00" in content
    )
    assert all(line.total is None for line in lines)
    assert all(line.data.endswith(b"\n") for line in lines[:-1])


@given(cut(), st.integers(1, 12))
def test_long_lines_are_cut_to_their_head_and_keep_their_offsets(
    given_cut: tuple[bytes, list[bytes]], most: int
) -> None:
    content, pieces = given_cut
    whole = frame([content])
    lines = frame(pieces, max_line=most)
    assert [line.end for line in lines] == [line.end for line in whole]
    assert [line.data for line in lines] == [line.data[:most] for line in whole]
    assert [line.total for line in lines] == [
        len(line.data) if len(line.data) > most else None for line in whole
    ]


@given(cut(), st.data())
def test_reading_may_begin_again_behind_any_line(
    given_cut: tuple[bytes, list[bytes]], data: st.DataObject
) -> None:
    content, _ = given_cut
    whole = frame([content])
    at = data.draw(st.integers(0, len(whole)))
    offset = whole[at - 1].end if at else 0
    assert frame([content[offset:]], offset=offset) == whole[at:]


def test_a_half_line_is_not_consumed() -> None:
    framer = LineFramer()
    assert framer.feed(b"one\ntw") == [Line(b"one\n", 4, None)]
    assert (framer.position, framer.offset) == (4, 6)
    assert framer.feed(b"o") == []
    assert framer.feed(b"\n") == [Line(b"two\n", 8, None)]
    assert framer.finish() is None
    framer.feed(b"end")
    assert framer.finish() == Line(b"end", 11, None)
    assert framer.finish() is None


def test_a_part_that_is_left_out_is_the_middle_of_a_long_line() -> None:
    framer = LineFramer(max_line=10)
    assert framer.feed(b"one\nsecr") == [Line(b"one\n", 4, None)]
    framer.skip(100)
    assert (framer.position, framer.offset) == (4, 108)
    assert framer.feed(b"et\nthree\n") == [Line(b"", 111, 107), Line(b"three\n", 117, None)]
    framer.skip(50)
    assert framer.finish() == Line(b"", 167, 50)
    assert framer.feed(b"next\n") == [Line(b"next\n", 172, None)]
