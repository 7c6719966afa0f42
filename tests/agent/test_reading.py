"""Looking at files and folders: what is shown, what is refused, and that nothing outside is."""

from __future__ import annotations

import dataclasses
import os
import struct
import zlib
from pathlib import Path

import pytest
from tests.agent.trees import Ground, plant

from overnight.agent.tools import list_dir, read_file
from overnight.agent.tools.indentation import Wanted, block
from overnight.agent.tools.list_dir import ListDir
from overnight.agent.tools.read_file import ReadFile
from overnight.agent.tools.tool import PlanChanged, Tool
from overnight.agent.tools.update_plan import UpdatePlan
from overnight.agent.tools.view_image import ViewImage
from overnight.agent.tools.workspace import open_workspace

pytestmark = pytest.mark.anyio


async def listed(ground: Ground, path: str = ".", **more: object) -> list[str]:
    return (await ground.run(ListDir(), dir_path=path, **more)).text.split("\n")


async def test_a_folder_with_every_kind_of_entry(ground: Ground) -> None:
    plant(ground.root, {"b.txt": "", "a/c/d.txt": "", "a/z": "", ".hidden": ""})
    (ground.root / "link").symlink_to("a")
    os.mkfifo(ground.root / "pipe")
    assert await listed(ground, depth=3) == [
        f"Absolute path: {ground.root}", ".hidden", "a/", "  c/", "    d.txt", "  z", "b.txt", "link@", "pipe?",
    ]  # fmt: skip
    assert (await listed(ground))[1:] == [".hidden", "a/", "  c/", "  z", "b.txt", "link@", "pipe?"]
    assert (await listed(ground, depth=1))[1:] == [".hidden", "a/", "b.txt", "link@", "pipe?"]
    assert await listed(ground, "a", depth=1) == [f"Absolute path: {ground.root}/a", "c/", "z"]
    assert await listed(ground, str(ground.root / "a"), depth=1) == [
        f"Absolute path: {ground.root}/a",
        "c/",
        "z",
    ]


async def test_pages_are_of_the_sorted_whole(ground: Ground) -> None:
    """Sorting each level by itself, or only the page, would show entries twice or never."""
    plant(ground.root, {f"{top}/{n}": "" for top in "dbca" for n in range(3)})
    whole = (await listed(ground, limit=100))[1:]
    pages = [await listed(ground, offset=at, limit=5) for at in (1, 6, 11, 16)]
    assert [line for page in pages for line in page[1:] if not line.startswith("More")] == whole
    assert [page[-1] for page in pages[:3]] == ["More than 5 entries found"] * 3
    assert len(pages[3]) == 2


async def test_an_empty_folder_and_what_is_beyond_the_end(ground: Ground) -> None:
    assert await listed(ground) == [f"Absolute path: {ground.root}"]
    plant(ground.root, {"a": ""})
    assert await ground.told(ListDir(), dir_path=".", offset=2) == "offset exceeds directory entry count"


@pytest.mark.parametrize("given, words", [
    ({"offset": 0}, "offset must be a 1-indexed entry number"), ({"limit": 0}, "limit must be greater than zero"),
    ({"depth": 0}, "depth must be greater than zero"), ({"dir_path": "missing"}, "cannot be read: there is no such"),
    ({"dir_path": "file"}, "cannot be read: not a directory"), ({"dir_path": ".."}, "beneath the workspace"),
    ({"dir_path": "/etc"}, "beneath the workspace"), ({"dir_path": "out"}, "leads out of the workspace"),
])  # fmt: skip
async def test_a_folder_that_cannot_be_listed(ground: Ground, given: dict[str, object], words: str) -> None:
    plant(ground.root, {"file": ""})
    (ground.root / "out").symlink_to(ground.outside)
    assert words in await ground.told(ListDir(), **{"dir_path": ".", **given})


async def test_long_and_strange_names(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overnight.agent.tools.reading.LONGEST_SHOWN", 10)
    plant(ground.root, {"x" * 50: "", "é\nb": ""})
    os.close(os.open(os.fsencode(ground.root) + b"/\xff", os.O_CREAT))
    assert (await listed(ground))[1:] == ["x" * 10, "é\\nb", "\ufffd"]


async def test_a_folder_of_a_million_is_not_read_to_its_end(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_dir, "MOST_ENTRIES", 10)
    plant(ground.root, {f"{n:02}": "" for n in range(30)})
    assert (await listed(ground))[-1] == "Only the first 10 entries were looked at"


async def lines(ground: Ground, path: str = "f", **more: object) -> str:
    return (await ground.run(ReadFile(), file_path=path, **more)).text


async def test_a_slice(ground: Ground) -> None:
    plant(ground.root, {"f": "a\nb\r\n\nd", "sub/f": "s\n"})
    assert await lines(ground) == "L1: a\nL2: b\nL3: \nL4: d"
    assert await lines(ground, offset=2, limit=2) == "L2: b\nL3: "
    assert await lines(ground, offset=4) == "L4: d"
    assert await lines(ground, str(ground.root / "sub/f")) == "L1: s"


async def test_a_link_within_the_workspace_is_followed(ground: Ground) -> None:
    plant(ground.root, {"sub/f": "s\n"})
    (ground.root / "link").symlink_to("sub/f")
    (ground.root / "folder").symlink_to(ground.root / "sub")
    assert [await lines(ground, path) for path in ("link", "folder/f")] == ["L1: s", "L1: s"]


async def test_the_full_output_of_a_command_can_be_read(ground: Ground) -> None:
    plant(ground.context.folder, {"shell/call.txt": "said\n"})
    assert await lines(ground, str(ground.context.folder / "shell/call.txt")) == "L1: said"
    refused = await ground.told(ReadFile(), file_path=f"{ground.context.folder}/../outside/precious.txt")
    assert "precious.txt" in refused or "beneath" in refused


async def test_an_own_folder_behind_a_link(ground: Ground, tmp_path: Path) -> None:
    plant(ground.context.folder, {"shell/call.txt": "said\n"})
    (tmp_path / "behind").symlink_to(ground.context.folder)
    with open_workspace(ground.root, readable=(tmp_path / "behind" / "shell",)) as workspace:
        context = dataclasses.replace(ground.context, workspace=workspace)
        outcome = await ReadFile().run({"file_path": f"{tmp_path}/behind/shell/call.txt"}, context)
    assert outcome.text == "L1: said"


async def test_long_lines_are_cut_and_bytes_replaced(ground: Ground) -> None:
    plant(ground.root, {"f": b"x" * 400_000 + b"\n" + "é".encode() * 501 + b"\nc\xe9\n"})
    assert await lines(ground) == f"L1: {'x' * 500}\nL2: {'é' * 500}\nL3: c\ufffd"


async def test_a_long_answer_says_where_to_go_on(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_file, "MOST_TEXT", 12)
    plant(ground.root, {"f": "a\nb\nc\nd\n"})
    assert (
        await lines(ground)
        == "L1: a\nL2: b\nL3: c\n[cut here, since the answer is long: go on with offset 4]"
    )


@pytest.mark.parametrize("given, words", [
    ({"offset": 0}, "offset must be a 1-indexed line number"), ({"limit": 0}, "limit must be greater than zero"),
    ({"offset": 4}, "offset exceeds file length"), ({"file_path": "missing"}, "there is no such file"),
    ({"file_path": "folder"}, "it is a directory"), ({"file_path": "pipe"}, "it is not a regular file"),
    ({"file_path": "binary"}, "is a binary file"), ({"file_path": "out"}, "leads out of the workspace"),
    ({"file_path": "loop"}, "too many levels of symbolic links"),
    ({"file_path": "a\0b"}, "no path that a file can have"),
    ({"file_path": "../outside/precious.txt"}, "beneath the workspace"), ({"file_path": "/etc/passwd"}, "beneath"),
    ({"mode": "indentation", "indentation": {"anchor_line": 4}}, "anchor_line exceeds file length"),
    ({"mode": "indentation", "indentation": {"anchor_line": 0}}, "anchor_line must be a 1-indexed line number"),
    ({"mode": "indentation", "indentation": {"max_lines": 0}}, "max_lines must be greater than zero"),
])  # fmt: skip
async def test_a_file_that_cannot_be_read(ground: Ground, given: dict[str, object], words: str) -> None:
    plant(ground.root, {"f": "a\nb\nc\n", "folder/x": "", "binary": b"a\0b"})
    (ground.root / "out").symlink_to(ground.outside / "precious.txt")
    (ground.root / "loop").symlink_to("loop")
    os.mkfifo(ground.root / "pipe")
    assert words in await ground.told(ReadFile(), **{"file_path": "f", **given})


async def test_an_empty_file(ground: Ground) -> None:
    plant(ground.root, {"f": ""})
    assert await lines(ground) == "The file is empty."
    assert await ground.told(ReadFile(), file_path="f", offset=2) == "offset exceeds file length"


async def test_a_huge_file_is_not_read_to_its_end(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_file, "MOST_SCANNED", 1 << 20)
    monkeypatch.setattr(read_file, "MOST_BLOCK", 1 << 20)
    plant(ground.root, {"text": "first\n" + "x" * (2 << 20) + "\nlast\n"})
    assert "only the first" in await ground.told(ReadFile(), file_path="text", offset=3)
    assert await lines(ground, "text", limit=1) == "L1: first"
    assert "up to" in await ground.told(ReadFile(), file_path="text", mode="indentation")


CODE = """\
import os

# About A.
class A:
    x = 1

    # About f.
    def f(self):
        if x:
            y()

        return z

    def g(self):
        pass


class B:
    pass
"""
BLOCKS = {
    "all levels": (10, {}, (3, 18)),
    "one level": (10, {"max_levels": 1}, (9, 12)),
    "two levels": (10, {"max_levels": 2}, (7, 14)),
    "two levels without the comment above": (10, {"max_levels": 2, "include_header": False}, (8, 14)),
    "with siblings": (10, {"max_levels": 2, "include_siblings": True}, (5, 15)),
    "few lines": (10, {"max_lines": 3}, (9, 10)),
    "one line": (10, {"max_lines": 1}, (10, 10)),
    "a line at the margin": (4, {}, (3, 18)),
}


@pytest.mark.parametrize("anchor, options, shown", BLOCKS.values(), ids=BLOCKS)
async def test_a_block(
    ground: Ground, anchor: int, options: dict[str, object], shown: tuple[int, int]
) -> None:
    plant(ground.root, {"f": CODE})
    text = await lines(ground, mode="indentation", indentation={"anchor_line": anchor, **options})
    numbers = [int(line.partition(":")[0][1:]) for line in text.split("\n")]
    assert (numbers[0], numbers[-1]) == shown
    assert numbers == list(range(shown[0], shown[1] + 1))


def test_tabs_blank_lines_and_edges() -> None:
    code = ["f {", "\tif {", "", "\t\tx", "", "\t}", "}"]
    assert block(code, 3, Wanted(max_levels=1, max_lines=99)) == range(1, 6)
    assert block(["", "", "a", ""], 2, Wanted(max_lines=99, include_siblings=True)) == range(2, 3)
    assert block([""], 0, Wanted(max_lines=99)) == range(1)
    assert block(["a"] * 50, 25, Wanted(max_lines=6, include_siblings=True)) == range(22, 28)


def picture() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


PICTURES = {
    "image/png": picture(), "image/jpeg": b"\xff\xd8\xff\xe0jfif", "image/gif": b"GIF89a....",
    "image/webp": b"RIFF0000WEBPVP8 ",
}  # fmt: skip


@pytest.mark.parametrize("kind", PICTURES)
async def test_a_picture_is_known_by_its_bytes(ground: Ground, kind: str) -> None:
    plant(ground.root, {"sub/p.txt": PICTURES[kind]})
    outcome = await ground.run(ViewImage(), path="sub/p.txt")
    assert outcome.text == "attached local image path"
    assert [(image.media_type, image.data) for image in outcome.images] == [(kind, PICTURES[kind])]


async def test_what_is_no_picture(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(
        ground.root,
        {"a.png": "<svg/>", "empty.png": "", "folder/x": "", "big.png": PICTURES["image/png"] * 100},
    )
    (ground.root / "out.png").symlink_to(ground.outside / "precious.txt")
    monkeypatch.setattr("overnight.agent.tools.view_image.MOST_BYTES", 1000)
    words = {
        "a.png": "is no PNG", "empty.png": "is no PNG", "folder": "it is a directory", "missing": "no such file",
        "big.png": "at most 1000 can be shown", "out.png": "leads out", "/etc/passwd": "beneath the workspace",
    }  # fmt: skip
    for path, expected in words.items():
        assert expected in await ground.told(ViewImage(), path=path)


async def test_a_plan(ground: Ground) -> None:
    plan = [{"step": "look", "status": "completed"}, {"step": "do", "status": "in_progress"}]
    outcome = await ground.run(UpdatePlan(), explanation="begun", plan=plan)
    assert outcome.text == "Plan updated"
    (event,) = outcome.events
    assert isinstance(event, PlanChanged)
    assert (event.explanation, [(step.text, step.status) for step in event.steps]) == (
        "begun", [("look", "completed"), ("do", "in_progress")],
    )  # fmt: skip
    two = [{"step": "a", "status": "in_progress"}, {"step": "b", "status": "in_progress"}]
    assert "at most one step" in await ground.told(UpdatePlan(), plan=two)
    assert (await ground.run(UpdatePlan(), plan=[])).ok


@pytest.mark.parametrize("tool, arguments, title", [
    (ReadFile(), {"file_path": "./a"}, "Read a"), (ListDir(), {"dir_path": "."}, "List ."),
    (ViewImage(), {"path": "p"}, "View p"), (UpdatePlan(), {"plan": []}, "Update the plan"),
])  # fmt: skip
async def test_previews(ground: Ground, tool: Tool, arguments: dict[str, object], title: str) -> None:
    assert (await tool.preview(arguments, ground.context)).title == title
