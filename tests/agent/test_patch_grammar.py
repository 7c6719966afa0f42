"""What is no patch is refused with the line and the reason, and what is nearly one is read as it was meant."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overnight.agent.tools.patch.forms import BarePatch, PatchCall, read_call, read_script
from overnight.agent.tools.patch.grammar import (
    MOST_CHARACTERS,
    MOST_FILES,
    Add,
    PatchInvalid,
    parse,
)

BODY = "*** Begin Patch\n*** Add File: a\n+x\n*** End Patch"

INVALID = {
    "nothing": ("", "Invalid patch: the first line must be '*** Begin Patch'"),
    "other text": ("hello", "Invalid patch: the first line must be '*** Begin Patch'"),
    "no end": ("*** Begin Patch\n*** Add File: a\n+x", "Invalid patch: the last line must be '*** End Patch'"),
    "only a beginning": ("*** Begin Patch", "Invalid patch: the last line must be '*** End Patch'"),
    "no header": ("*** Begin Patch\nhello\n*** End Patch", "Invalid patch hunk on line 2: 'hello' begins no file"),
    "another header": ("*** Begin Patch\n*** Frobnicate: a\n*** End Patch", "Invalid patch hunk on line 2: "),
    "no path": ("*** Begin Patch\n*** Add File:  \n*** End Patch", "Invalid patch hunk on line 2: '*** Add File:' na"),
    "no target": (
        "*** Begin Patch\n*** Update File: a\n*** Move to: \n-a\n*** End Patch",
        "Invalid patch hunk on line 3: '*** Move to:' names no file",
    ),
    "an empty update": (
        "*** Begin Patch\n*** Add File: b\n+x\n*** Update File: a\n*** End Patch",
        "Invalid patch hunk on line 4: the update of 'a' has no chunks",
    ),
    "an empty chunk": (
        "*** Begin Patch\n*** Update File: a\n@@\n*** End Patch", "Invalid patch hunk on line 3: the chunk has no",
    ),
    "an empty chunk at the end of the file": (
        "*** Begin Patch\n*** Update File: a\n@@\n*** End of File\n*** End Patch",
        "Invalid patch hunk on line 3: the chunk has no lines",
    ),
    "a line without a sign": (
        "*** Begin Patch\n*** Update File: a\n@@\nhello\n*** End Patch",
        "Invalid patch hunk on line 4: 'hello' is no line of a chunk",
    ),
    "a second chunk without @@": (
        "*** Begin Patch\n*** Update File: a\n@@\n-x\n*** End of File\n-y\n*** End Patch",
        "Invalid patch hunk on line 6: a chunk begins with '@@', not with '-y'",
    ),
    "a line without a plus in a new file": (
        "*** Begin Patch\n*** Add File: a\n+x\ny\n*** End Patch", "Invalid patch hunk on line 4: 'y' begins no file",
    ),
    "a NUL": ("*** Begin Patch\n*** Add File: a\n+\0\n*** End Patch", "Invalid patch: it holds a NUL character"),
    "half a character": ("*** Begin Patch\n*** Add File: a\n+\ud800\n*** End Patch", "Invalid patch: it is not valid"),
    "too long": (
        "*** Begin Patch\n*** Add File: a\n+" + "x" * MOST_CHARACTERS + "\n*** End Patch", "Invalid patch: it has more",
    ),
    "too many files": (
        "*** Begin Patch\n" + "*** Delete File: a\n" * (MOST_FILES + 1) + "*** End Patch", "Invalid patch: it changes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("text, words", INVALID.values(), ids=INVALID)
def test_what_is_no_patch(text: str, words: str) -> None:
    with pytest.raises(PatchInvalid) as refused:
        parse(text)
    assert str(refused.value).startswith(words)


LENIENT = {
    "blanks around": f"\n  {BODY}  \n\n",
    "blanks behind headers": "*** Begin Patch \n  *** Add File: a \n+x\n *** End Patch",
    "empty lines between": "*** Begin Patch\n\n*** Add File: a\n+x\n\n*** End Patch",
    "a heredoc": f"<<EOF\n{BODY}\nEOF",
    "a quoted heredoc": f"<<'EOF'\n{BODY}\nEOF\n",
    "a doubly quoted heredoc": f'<<"EOF"\n{BODY}\nEOF',
    "a heredoc of another name": f"<<'PATCH'\n{BODY}\nPATCH",
    "CRLF": BODY.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("text", LENIENT.values(), ids=LENIENT)
def test_what_is_nearly_a_patch(text: str) -> None:
    (operation,) = parse(text)
    assert isinstance(operation, Add)
    assert (operation.path, operation.content) == ("a", "x\n")


@pytest.mark.parametrize(
    "text", [f"<<'EOF\"\n{BODY}\nEOF", f"<<EOF\n{BODY}\nEND", f"<<EOF\n{BODY}", f"EOF\n{BODY}\nEOF"]
)
def test_half_a_heredoc_is_none(text: str) -> None:
    with pytest.raises(PatchInvalid):
        parse(text)


def test_an_empty_patch_has_no_operations() -> None:
    assert parse("*** Begin Patch\n*** End Patch") == ()


def test_lines_are_numbered_from_the_beginning_of_the_patch() -> None:
    found = parse(
        "*** Begin Patch\n*** Delete File: a\n*** Update File: b\n-x\n*** Delete File: c\n*** End Patch"
    )
    assert [operation.line for operation in found] == [2, 3, 5]


ALPHABET = st.sampled_from(
    ["*** Begin Patch", "*** End Patch", "*** Add File: a", "*** Delete File: b", "*** Update File: c", "***",
     "*** Move to: d", "@@", "@@ x", "*** End of File", "+x", "-x", " x", "", "+", "x", "<<EOF", "EOF", "\r", "  @@"]
)  # fmt: skip


@settings(max_examples=300, derandomize=True)
@given(st.one_of(st.text(max_size=200), st.lists(ALPHABET, max_size=14).map("\n".join)))
@example("*** Begin Patch\n*** Update File: c\n@@\n@@\n*** End Patch")
def test_whatever_the_text_only_its_own_error_is_raised(text: str) -> None:
    for each in (text, f"*** Begin Patch\n{text}\n*** End Patch"):
        assert read(each).startswith(("Invalid patch", "operations"))


def read(text: str) -> str:
    try:
        return f"operations: {parse(text)}"
    except PatchInvalid as refused:
        return str(refused)


HERE = f"<<'EOF'\n{BODY}\nEOF"
FORMS = {
    "the command": (["apply_patch", BODY], None),
    "its other name": (["applypatch", BODY], None),
    "bash": (["bash", "-lc", f"apply_patch {HERE}"], None),
    "bash by its path": (["/bin/bash", "-lc", f"applypatch {HERE}\n"], None),
    "an unquoted heredoc": (["bash", "-lc", f"apply_patch <<EOF\n{BODY}\nEOF"], None),
    "a doubly quoted heredoc": (["bash", "-lc", f'apply_patch <<"EOF"\n{BODY}\nEOF'], None),
    "another word": (["bash", "-lc", f"apply_patch <<'PATCH'\n{BODY}\nPATCH"], None),
    "in a folder": (["bash", "-lc", f"cd foo && apply_patch {HERE}"], "foo"),
    "in a quoted folder": (["bash", "-lc", f"cd 'foo bar' && apply_patch {HERE}"], "foo bar"),
    "in a doubly quoted folder": (["bash", "-lc", f'cd "foo bar" && apply_patch {HERE}'], "foo bar"),
    "in a folder, on two lines": (["bash", "-lc", f"cd a/b &&\napply_patch {HERE}"], "a/b"),
}


@pytest.mark.parametrize("argv, folder", FORMS.values(), ids=FORMS)
def test_a_command_that_is_a_patch(argv: list[str], folder: str | None) -> None:
    assert read_call(argv) == PatchCall(patch=BODY, folder=folder)


OTHERS = {
    "a semicolon": ["bash", "-lc", f"cd foo; apply_patch {HERE}"],
    "or": ["bash", "-lc", f"cd foo || apply_patch {HERE}"],
    "a pipe": ["bash", "-lc", f"cd foo | apply_patch {HERE}"],
    "something before": ["bash", "-lc", f"echo hi && apply_patch {HERE}"],
    "something behind": ["bash", "-lc", f"apply_patch {HERE} && echo hi"],
    "something on the next line": ["bash", "-lc", f"apply_patch {HERE}\necho hi"],
    "something, and the word again": ["bash", "-lc", f"apply_patch {HERE}\nrm -rf x\nEOF"],
    "a second cd": ["bash", "-lc", f"cd foo && cd bar && apply_patch {HERE}"],
    "cd with two folders": ["bash", "-lc", f"cd foo bar && apply_patch {HERE}"],
    "a folder that the shell would make": ["bash", "-lc", f"cd $HOME && apply_patch {HERE}"],
    "an argument": ["bash", "-lc", f"apply_patch foo {HERE}"],
    "an argument too many": ["apply_patch", BODY, "x"],
    "no heredoc": ["bash", "-lc", "apply_patch file.patch"],
    "quotes that do not fit": ["bash", "-lc", f"apply_patch <<'EOF\"\n{BODY}\nEOF"],
    "no end": ["bash", "-lc", f"apply_patch <<EOF\n{BODY}"],
    "another command": ["ls", "-l"],
    "another program": ["python", "-c", f"apply_patch {HERE}"],
    "nothing": [],
}


@pytest.mark.parametrize("argv", OTHERS.values(), ids=OTHERS)
def test_a_command_that_is_something_else(argv: list[str]) -> None:
    assert read_call(argv) is None


@pytest.mark.parametrize("argv", [[BODY], ["bash", "-lc", BODY], ["sh", "-c", f"\n{BODY}\n"]])
def test_a_patch_without_a_command(argv: list[str]) -> None:
    with pytest.raises(BarePatch):
        read_call(argv)


@settings(max_examples=200, derandomize=True)
@given(
    st.lists(
        st.sampled_from(["cd ", "a", " && ", "apply_patch", " <<'E'", "\n", "E", ";", "'", '"', "$x"]),
        max_size=12,
    )
)
def test_any_script_can_be_looked_at(parts: list[str]) -> None:
    found = read_script("".join(parts))
    assert found is None or isinstance(found, PatchCall)
