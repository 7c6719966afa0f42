"""Hundreds of patches made from trees: they give the tree they were made for; spoilt ones give one or nothing."""

from __future__ import annotations

import contextlib
import difflib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agent.trees import Ground, ground_at, plant, snapshot, wrap

from overnight.agent.tools.apply_patch import JOURNALS
from overnight.agent.tools.patch.changes import changes_of, unified
from overnight.agent.tools.patch.grammar import PatchInvalid, parse
from overnight.agent.tools.patch.plan import PatchFailed, make_plan
from overnight.agent.tools.patch.transaction import carry_out

PATHS = ("a", "b.txt", "sub/c", "sub/deep/d", "e e", "ü")
NEW_PATHS = ("n1", "sub/n2", "new/n3", "new/deeper/n4")
WORDS = st.sampled_from(["x", "  y", "\tz", "", "@@", "+p", "-m", "*** End", " ", "é–“", "a\rb", "tail  "])
ENDS = st.sampled_from(["\n", "\n", "\r\n"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A tree, a patch, and the tree that it makes."""

    before: dict[str, bytes]
    body: str
    after: dict[str, bytes]


@st.composite
def contents(draw: st.DrawFn) -> tuple[list[str], str, bool]:
    """Lines, how they end, and whether each can be told from the others."""
    words = draw(st.lists(WORDS, max_size=12))
    unique = draw(st.booleans())
    lines = [f"{word}{number}" for number, word in enumerate(words)] if unique else words
    return lines, draw(ENDS), unique


@st.composite
def edited(draw: st.DrawFn, lines: list[str]) -> list[str]:
    out: list[str] = []
    for line in lines:
        match draw(st.sampled_from(["keep", "keep", "keep", "drop", "change", "before"])):
            case "keep":
                out.append(line)
            case "change":
                out.append(f"changed {line}")
            case "before":
                out += ["fresh", line]
            case _:
                pass
    return out + draw(st.lists(st.sampled_from(["end", "", "x"]), max_size=2))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    before: dict[str, bytes] = {}
    after: dict[str, bytes] = {}
    bodies: list[str] = []
    free = list(draw(st.permutations(NEW_PATHS)))
    for path in draw(st.lists(st.sampled_from(PATHS), unique=True, min_size=1)):
        lines, end, unique = draw(contents())
        final = draw(st.booleans())
        before[path] = joined(lines, end, final=final)
        match draw(
            st.sampled_from(["keep", "delete", "update", "update", "update", "move", "rename", "replace"])
        ):
            case "keep":
                after[path] = before[path]
            case "delete":
                bodies.append(f"*** Delete File: {path}")
            case "replace":
                after[path] = b"whole\n"
                bodies.append(f"*** Add File: {path}\n+whole")
            case "rename" if free:
                target = free.pop()
                after[target] = before[path]
                bodies.append(f"*** Update File: {path}\n*** Move to: {target}")
            case kind:
                new = draw(edited(lines))
                chunks = draw(chunked(lines, new, unique=unique))
                if not chunks:
                    after[path] = before[path]
                    continue
                target = free.pop() if kind == "move" and free else path
                move = f"*** Move to: {target}\n" if target != path else ""
                after[target] = joined(new, usual(lines, end, final=final), final=True)
                bodies.append(f"*** Update File: {path}\n{move}{chunks}")
    for path in free[: draw(st.integers(0, 2))]:
        new, _, _ = draw(contents())
        after[path] = joined(new, "\n", final=True)
        bodies.append("\n".join([f"*** Add File: {path}", *(f"+{line}" for line in new)]))
    order = draw(st.permutations(bodies))
    return Case(before=before, body="\n".join(order), after=after)


@st.composite
def chunked(draw: st.DrawFn, old: list[str], new: list[str], *, unique: bool) -> str:
    """Chunks that make `new` of `old`: with little context where each line is known, else with all of it."""
    if old == new:
        return ""
    around = draw(st.integers(1, 3)) if unique else len(old)
    careless = draw(st.booleans()) and unique
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    out: list[str] = []
    for group in matcher.get_grouped_opcodes(around):
        first, last = group[0], group[-1]
        removed = any(tag != "insert" for tag, *_ in group)
        if not removed and last[2] != len(old):
            return ""  # what has no old line goes to the end
        chunk: list[str] = []
        for tag, a, b, c, d in group:
            if tag == "equal":
                # Kept lines may be named carelessly: the file's own stay.
                chunk += [f" {line}{'  ' if careless else ''}" for line in old[a:b]]
            else:
                chunk += [f"-{line}" for line in old[a:b]] + [f"+{line}" for line in new[c:d]]
        context = old[first[1] - 1] if unique and first[1] and draw(st.booleans()) else ""
        out += [f"@@ {context}" if context.strip() else "@@", *chunk]
        if last[2] == len(old) and removed and draw(st.booleans()):
            out.append("*** End of File")
    return "\n".join(out)


def joined(lines: list[str], end: str, *, final: bool) -> bytes:
    text = end.join(lines) + (end if lines and (final or not lines[-1]) else "")
    return text.encode()


def usual(lines: list[str], end: str, *, final: bool) -> str:
    """What most lines of the file end with: an empty file, or one of a single unended line, has no CRLF."""
    return end if joined(lines, end, final=final).count(b"\n") else "\n"


@contextlib.contextmanager
def tree(files: dict[str, bytes]) -> Iterator[Ground]:
    with tempfile.TemporaryDirectory() as place, ground_at(Path(place)) as ground:
        plant(ground.root, files)
        yield ground
        ground.assert_outside_untouched()


def files_in(ground: Ground) -> dict[str, object]:
    return {path: entry[2] for path, entry in snapshot(ground.root).items() if entry[0] == "file"}


def apply(ground: Ground, text: str) -> None:
    root = ground.context.workspace.fd
    plan = make_plan(root, [], parse(text))
    changes_of(plan)
    carry_out(root, plan.changes, ground.context.folder / JOURNALS)


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@settings(max_examples=300, derandomize=True)
@given(cases())
def test_a_patch_makes_the_tree_that_it_was_made_for(case: Case) -> None:
    with tree(case.before) as ground:
        if not case.body:
            return
        apply(ground, wrap(case.body))
        assert files_in(ground) == case.after
        assert [name for name in os.listdir(ground.root) if name.startswith(".overnight")] == []


SPOILING = st.lists(
    st.tuples(st.sampled_from(["drop", "double", "swap", "insert", "cut"]), st.integers(0, 200), st.integers(0, 200)),
    min_size=1, max_size=4,
)  # fmt: skip
STRANGE = (
    "*** Delete File: a", "@@", "*** End of File", "+x", "-x", " x", "", "*** Add File: ../outside/precious.txt",
    "*** Move to: /etc/x", "*** Update File: sub", "*** Update File: missing", "*** Begin Patch", "*** End Patch", "?",
    "*** Add File: a/b", "*** Delete File: .git/config",
)  # fmt: skip


@settings(max_examples=200, derandomize=True)
@given(cases(), SPOILING)
def test_a_spoilt_patch_is_refused_as_a_whole_or_is_another_one(
    case: Case, spoiling: list[tuple[str, int, int]]
) -> None:
    with tree(case.before) as ground:
        old = snapshot(ground.root)
        refused = attempt(ground, spoilt(wrap(case.body), spoiling))
        if refused is not None:
            assert snapshot(ground.root) == old
            assert refused.startswith(("Invalid patch", "Failed to ", "No files were modified."))
        assert list((ground.context.folder / JOURNALS).glob("*")) == []


def attempt(ground: Ground, text: str) -> str | None:
    try:
        apply(ground, text)
    except (PatchInvalid, PatchFailed) as error:
        return str(error)
    return None


def spoilt(text: str, spoiling: list[tuple[str, int, int]]) -> str:
    lines = text.split("\n")
    for kind, one, other in spoiling:
        first, second = one % len(lines), other % len(lines)
        match kind:
            case "drop" if len(lines) > 1:
                del lines[first]
            case "double":
                lines.insert(first, lines[first])
            case "swap":
                lines[first], lines[second] = lines[second], lines[first]
            case "insert":
                lines.insert(max(1, first), STRANGE[other % len(STRANGE)])
            case _:
                lines[first] = lines[first][: other % 30]
    return "\n".join(lines)


LINES = st.lists(st.sampled_from(["a", "b", "c", "d", ""]), max_size=30)


@settings(max_examples=200, derandomize=True)
@given(LINES, LINES)
def test_a_difference_leads_from_the_old_text_to_the_new(old: list[str], new: list[str]) -> None:
    before, after = [f"{line}\n" for line in old], [f"{line}\n" for line in new]
    diff = unified("".join(before), "".join(after), "x", "y")
    assert followed(old, diff) == new
    assert (diff == "") == (old == new)


def followed(old: list[str], diff: str) -> list[str]:
    """`old` as a unified difference changes it; its numbers are checked on the way."""
    out: list[str] = []
    at = 0
    for line in diff.split("\n")[2:-1]:
        if line.startswith("@@"):
            start, count = map(int, line.split()[1][1:].split(","))
            start -= count > 0
            out += old[at:start]
            new_start, new_count = map(int, line.split()[2][1:].split(","))
            assert len(out) == new_start - (new_count > 0)
            at = start
            continue
        if line[0] in " -":
            assert old[at] == line[1:]
            at += 1
        if line[0] in " +":
            out.append(line[1:])
    return out + old[at:]
