"""What patches do to files, case by case."""

from __future__ import annotations

import os
import stat

import pytest
from tests.agent.trees import Ground, plant, snapshot

from overnight.agent.tools.apply_patch import ApplyPatch
from overnight.agent.tools.tool import FileChanged

pytestmark = pytest.mark.anyio

# Each: file before, chunks, file after.
UPDATES = {
    "replaces a line": ("a\nb\nc\n", "@@\n a\n-b\n+B\n c", "a\nB\nc\n"),
    "needs no @@ for the first chunk": ("a\nb\n", "-a\n+A\n b", "A\nb\n"),
    "adds between lines": ("a\nb\n", "@@\n a\n+new\n b", "a\nnew\nb\n"),
    "removes": ("a\nb\nc\n", "@@\n a\n-b\n c", "a\nc\n"),
    "removes all": ("a\n", "@@\n-a", ""),
    "several chunks": ("a\nb\nc\nd\ne\nf\n", "@@\n a\n-b\n+B\n@@\n e\n-f\n+F", "a\nB\nc\nd\ne\nF\n"),
    "blank lines between chunks": ("a\nb\nc\nd\n", "@@\n-a\n+A\n@@\n-d\n+D\n*** End of File\n\n", "A\nb\nc\nD\n"),
    "a context leads to the place": (
        "def f():\n    x = 1\ndef g():\n    x = 1\n", "@@ def g():\n-    x = 1\n+    x = 2",
        "def f():\n    x = 1\ndef g():\n    x = 2\n",
    ),
    "contexts narrow each other down": (
        "class A:\n  def f():\n    1\nclass B:\n  def f():\n    1\n", "@@ class B:\n@@   def f():\n-    1\n+    2",
        "class A:\n  def f():\n    1\nclass B:\n  def f():\n    2\n",
    ),
    "later chunks are sought behind earlier ones": (
        "x\ny\nx\ny\n", "@@\n-x\n+1\n@@\n-x\n+2", "1\ny\n2\ny\n",
    ),
    "end of file means the last place": ("x\ny\nx\n", "@@\n-x\n+z\n*** End of File", "x\ny\nz\n"),
    "no old lines are added at the end": ("a\nb\n", "@@\n+c\n+d", "a\nb\nc\nd\n"),
    "no old lines go to the end, in order": ("a\n", "@@\n+b\n@@\n+c", "a\nb\nc\n"),
    "an empty file grows": ("", "@@\n+a", "a\n"),
    "an empty line is empty context": ("a\n\nb\n", "@@\n a\n\n-b\n+c", "a\n\nc\n"),
    "an empty line behind a chunk parts it only": ("a\nb\n", "@@\n-a\n+A\n\n@@\n-b\n+B", "A\nB\n"),
    "a final newline is added": ("a\nb", "@@\n-b\n+c", "a\nc\n"),
    "a final newline is added though another line changes": ("a\nb", "@@\n-a\n+c", "c\nb\n"),
    "trailing blanks do not matter": ("a  \nb\t\n", "@@\n a\n-b\n+c", "a  \nc\n"),
    "indentation does not matter at last": ("\t\tif x:\n\t\t\ty\n", "@@\n if x:\n-y\n+\t\t\tz", "\t\tif x:\n\t\t\tz\n"),
    "an exact place goes before a similar one": ("  a\nb\na\n", "@@\n-a\n+c", "  a\nb\nc\n"),
    "typographic signs are plain ones": (
        "import x  # local – “ok”\u00a0y\n", '@@\n-import x  # local - "ok" y\n+import z', "import z\n",
    ),
    "kept lines stay as the file has them": ("a – b\nc\n", "@@\n a - b\n-c\n+d", "a – b\nd\n"),
    "CRLF stays": ("a\r\nb\r\nc\r\n", "@@\n a\n-b\n+B\n+D\n c", "a\r\nB\r\nD\r\nc\r\n"),
    "CRLF is not doubled": ("a\r\nb\r\n", "@@\n a\r\n-b\r\n+B\r", "a\r\nB\r\n"),
    "mixed ends stay where nothing changes": ("a\r\nb\r\nc\nd\r\n", "@@\n-b\n+B", "a\r\nB\r\nc\nd\r\n"),
    "a byte order mark stays": ("\ufeffa\nb\n", "@@\n-a\n+A", "\ufeffA\nb\n"),
    "bytes that are no UTF-8 stay": (b"caf\xe9\nb\n", "@@\n-b\n+c", b"caf\xe9\nc\n"),
    "separators of lines that are none of ours": ("a\x0bb\u2028c\rd\ne\n", "@@\n-e\n+f", "a\x0bb\u2028c\rd\nf\n"),
    "a line of stars": ("*** x\n", "@@\n-*** x\n+*** y", "*** y\n"),
    "two at signs in the text": ("@@ a\n", "@@\n-@@ a\n+@@ b", "@@ b\n"),
    "nothing but context": ("a\n", "@@\n a", "a\n"),
    "the last line twice named": ("a\nb\n", "@@\n a\n b\n+c\n*** End of File", "a\nb\nc\n"),
}  # fmt: skip


@pytest.mark.parametrize("before, chunks, after", UPDATES.values(), ids=UPDATES)
async def test_an_update(ground: Ground, before: str | bytes, chunks: str, after: str | bytes) -> None:
    plant(ground.root, {"f": before})
    outcome = await ground.patch(f"*** Update File: f\n{chunks}")
    assert ground.read("f") == (after if isinstance(after, bytes) else after.encode())
    assert outcome.ok
    assert outcome.text == "Success. Updated the following files:\nM f\n"
    assert os.listdir(ground.root) == ["f"]


UNFIT = {
    "no such context": ("a\n", "@@ zz\n-a\n+b", "Failed to find context 'zz' in f"),
    "no such lines": ("a\n", "@@\n-x\n-y\n+b", "Failed to find expected lines in f:\nx\ny"),
    "lines only before the context": ("a\nb\n", "@@ b\n-a\n+c", "Failed to find expected lines in f:\na"),
    "not at the end": ("x\ny\n", "@@\n-x\n+z\n*** End of File", "Failed to find expected lines in f:\nx"),
    "more lines than the file has": ("a\n", "@@\n a\n b\n-c", "Failed to find expected lines in f:\na\nb\nc"),
    "the end was taken already": ("a\n", "@@\n-a\n+b\n@@\n-a\n+c\n*** End of File", "Failed to find expected"),
    "an empty file": ("", "@@\n-a", "Failed to find expected lines in f:\na"),
    "binary": (b"a\0b\n", "@@\n-a\n+b", "Failed to read file to update f: it is a binary file"),
}  # fmt: skip


@pytest.mark.parametrize("before, chunks, words", UNFIT.values(), ids=UNFIT)
async def test_an_update_that_does_not_fit(
    ground: Ground, before: str | bytes, chunks: str, words: str
) -> None:
    plant(ground.root, {"f": before, "g": "g\n"})
    body = f"*** Add File: new/one\n+x\n*** Delete File: g\n*** Update File: f\n{chunks}"
    assert (await ground.refused(body)).startswith(words)


async def test_adds_with_folders(ground: Ground) -> None:
    outcome = await ground.patch("*** Add File: a/b/c.txt\n+one\n+\n+ two\n*** Add File: empty")
    assert ground.read("a/b/c.txt") == b"one\n\n two\n"
    assert ground.read("empty") == b""
    assert outcome.text == "Success. Updated the following files:\nA a/b/c.txt\nA empty\n"


async def test_every_letter_in_its_order(ground: Ground) -> None:
    plant(ground.root, {"m": "m\n", "d": "d\n", "from": "x\n"})
    outcome = await ground.patch(
        "*** Delete File: d\n*** Update File: m\n-m\n+M\n*** Add File: a\n+a\n"
        "*** Update File: from\n*** Move to: deep/to\n@@\n-x\n+y"
    )
    assert outcome.text == "Success. Updated the following files:\nA a\nM m\nM deep/to\nD d\n"
    assert snapshot(ground.root).keys() == {"a", "m", "deep", "deep/to"}
    assert ground.read("deep/to") == b"y\n"
    assert outcome.structured == {"success": True, "stdout": outcome.text, "stderr": ""}


async def test_a_file_is_moved_as_it_is(ground: Ground) -> None:
    plant(ground.root, {"a": b"\0binary"})
    await ground.patch("*** Update File: a\n*** Move to: b/a")
    assert snapshot(ground.root).keys() == {"b", "b/a"}
    assert ground.read("b/a") == b"\0binary"


async def test_a_move_takes_the_permissions_along_and_replaces(ground: Ground) -> None:
    plant(ground.root, {"tool": "#!/bin/sh\nold\n", "there": "other\n"})
    (ground.root / "tool").chmod(0o755)
    await ground.patch("*** Update File: tool\n*** Move to: there\n@@\n-old\n+new")
    assert snapshot(ground.root) == {"there": ("file", 0o755, b"#!/bin/sh\nnew\n")}


async def test_a_move_to_itself_is_an_update(ground: Ground) -> None:
    plant(ground.root, {"a": "x\n"})
    outcome = await ground.patch("*** Update File: a\n*** Move to: ./a\n@@\n-x\n+y")
    assert (ground.read("a"), outcome.text.splitlines()[1]) == (b"y\n", "M a")


@pytest.mark.parametrize("mode", [0o755, 0o600, 0o640, 0o444 | stat.S_IWUSR])
async def test_permissions_stay(ground: Ground, mode: int) -> None:
    plant(ground.root, {"f": "a\n"})
    (ground.root / "f").chmod(mode)
    await ground.patch("*** Update File: f\n-a\n+b")
    assert snapshot(ground.root) == {"f": ("file", mode, b"b\n")}


async def test_a_new_file_has_the_permissions_of_new_files(ground: Ground) -> None:
    (ground.root / "usual").touch()
    await ground.patch("*** Add File: f\n+a")
    assert stat.S_IMODE((ground.root / "f").stat().st_mode) == stat.S_IMODE(
        (ground.root / "usual").stat().st_mode
    )


async def test_an_added_file_replaces_the_one_that_is_there(ground: Ground) -> None:
    plant(ground.root, {"f": "old\n"})
    (ground.root / "f").chmod(0o700)
    outcome = await ground.patch("*** Add File: f\n+new")
    assert snapshot(ground.root) == {"f": ("file", 0o700, b"new\n")}
    assert outcome.text.endswith("A f\n")
    assert [
        (event.old_text, event.new_text) for event in outcome.events if isinstance(event, FileChanged)
    ] == [("old\n", "new\n")]


async def test_operations_see_what_earlier_ones_have_made(ground: Ground) -> None:
    plant(ground.root, {"a": "1\n2\n", "gone": "x\n"})
    await ground.patch(
        "*** Update File: a\n-1\n+one\n*** Update File: a\n-2\n+two\n"
        "*** Add File: n\n+n\n*** Update File: n\n-n\n+m\n"
        "*** Delete File: gone\n*** Add File: gone\n+back\n"
        "*** Add File: short\n+x\n*** Delete File: short"
    )
    found = {name: entry[2] for name, entry in snapshot(ground.root).items()}
    assert found == {"a": b"one\ntwo\n", "n": b"m\n", "gone": b"back\n"}


async def test_a_moved_file_is_no_more_at_its_old_place(ground: Ground) -> None:
    plant(ground.root, {"a": "1\n"})
    words = await ground.refused("*** Update File: a\n*** Move to: b\n-1\n+2\n*** Update File: a\n-1\n+3")
    assert words == "Failed to read file to update a: no such file"


async def test_a_folder_of_the_workspace_as_base(ground: Ground) -> None:
    plant(ground.root, {"sub/f": "a\n", "f": "a\n"})
    outcome = await ground.patch("*** Update File: f\n-a\n+b", cwd="sub")
    assert (ground.read("sub/f"), ground.read("f")) == (b"b\n", b"a\n")
    assert outcome.text.endswith("M sub/f\n")
    await ground.patch("*** Update File: f\n-b\n+c", cwd=str(ground.root / "sub"))
    assert ground.read("sub/f") == b"c\n"


async def test_a_preview_changes_nothing_and_shows_the_difference(ground: Ground) -> None:
    plant(ground.root, {"f": "".join(f"{n}\n" for n in range(9)), "d": "x\n", "m": "1\n2\n"})
    was = snapshot(ground.root)
    body = "*** Update File: f\n 3\n-4\n+four\n*** Delete File: d\n*** Update File: m\n*** Move to: n\n 1\n-2\n+3"
    patch = {"patch": f"*** Begin Patch\n{body}\n*** End Patch"}
    preview = await ApplyPatch().preview(patch, ground.context)
    assert snapshot(ground.root) == was
    assert preview.paths == ("f", "d", "m", "n")
    assert [(each.path, each.kind, each.moved_from) for each in preview.changes] == [
        ("f", "modified", None), ("d", "deleted", None), ("n", "created", "m"),
    ]  # fmt: skip
    assert preview.changes[0].diff == "--- a/f\n+++ b/f\n@@ -4,3 +4,3 @@\n 3\n-4\n+four\n 5\n"
    assert preview.changes[2].diff == "--- a/m\n+++ b/n\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n"
    assert (await ground.patch(body)).events == preview.changes
