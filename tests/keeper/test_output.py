"""Every byte of output reaches its file, whatever its size and whether or not the disk has room for it."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.keeper.harness import PYTHON, Place

from overnight.backends.process.framing import MAX_LINE, LineFramer, OutputTail, OutputTruncated
from overnight.keeper_protocol import read_record
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def test_output_is_announced_as_it_comes(place: Place) -> None:
    turn = await place.launch(
        "/bin/sh", "-c", "echo one; read go; echo two; read go; printf half; read go; echo end"
    )
    view = turn.view
    for number, expected in enumerate((b"one\n", b"two\n", b"half"), 1):
        size = view.stdout
        while view.stdout == size:
            view = await turn.changed(view)
        assert (place.turns[0] / "stdout").read_bytes().endswith(expected)
        await turn.send_stdin(number, b"go\n")
    assert (await turn.ended()).stdout_bytes == len("one\ntwo\nhalfend\n")


async def test_a_line_of_fifty_megabytes_is_cut_for_the_reader_only(place: Place) -> None:
    code = (
        "import os\nos.write(1, b'before\\n')\n"
        "for _ in range(50): os.write(1, b'x' * 1000000)\n"
        "os.write(1, b'\\nafter\\n')"
    )
    turn = await place.launch(*PYTHON, code)
    record = await turn.ended()
    assert record.stdout_bytes == 7 + 50_000_001 + 6
    framer = LineFramer()
    lines = []
    with OutputTail(place.turns[0] / "stdout") as tail:
        while data := tail.read(record.stdout_bytes):
            lines += framer.feed(data)
    assert [line.data[:10] for line in lines] == [b"before\n", b"x" * 10, b"after\n"]
    assert [line.total for line in lines] == [None, 50_000_001, None]
    assert [line.end for line in lines] == [7, 50_000_008, 50_000_014]
    assert len(lines[1].data) == MAX_LINE


async def test_both_streams_are_complete_under_load(place: Place) -> None:
    code = (
        "import os\n"
        "for number in range(20000):\n"
        "    os.write(1, b'%d out\\n' % number)\n"
        "    if number % 3 == 0: os.write(2, b'%d err\\n' % number)"
    )
    turn = await place.launch(*PYTHON, code)
    await turn.ended()
    out = "".join(f"{number} out\n" for number in range(20000))
    err = "".join(f"{number} err\n" for number in range(0, 20000, 3))
    assert (place.turns[0] / "stdout").read_text() == out
    assert (place.turns[0] / "stderr").read_text() == err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be had: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)


def make_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)


WRITER = "import os, sys\nfor _ in range(3000): os.write(1, b'z' * 1000)\nsys.exit(4)"


async def test_a_full_disk_makes_the_agent_wait_and_loses_nothing(place: Place, small_disk: Path) -> None:
    turn = await place.launch(*PYTHON, WRITER, out_path=str(small_disk / "stdout"))
    view = turn.view
    while not view.stalled:
        view = await turn.changed(view)
    await turn.renew()
    make_room(small_disk)
    record = await turn.ended()
    assert (record.exit_code, record.stdout_bytes, record.discarded_bytes) == (4, 3_000_000, 0)
    data = (small_disk / "stdout").read_bytes()
    assert hashlib.sha256(data).digest() == hashlib.sha256(b"z" * 3_000_000).digest()
    assert not turn.view.stalled


async def test_an_agent_can_be_cancelled_while_the_disk_is_full(place: Place, small_disk: Path) -> None:
    folder = small_disk / "turn"
    folder.mkdir()
    place.turns.append(folder)
    changes = {
        "turn_folder": str(folder),
        "out_path": str(folder / "stdout"),
        "err_path": str(folder / "stderr"),
    }
    turn = await place.launch(*PYTHON, WRITER, cwd="/", grace_s=0.2, **changes)
    view = turn.view
    while not view.stalled:
        view = await turn.changed(view)
    await turn.ladder()
    record = await turn.ended()
    assert (record.reason, record.survivors) == ("stopped", 0)
    assert record.discarded_bytes > 0
    assert record.stdout_bytes == (folder / "stdout").stat().st_size
    # Even the record has to wait for room; the keeper stays until it is written, and tells everyone meanwhile.
    assert read_record(str(folder)) is None
    make_room(small_disk)
    await eventually(lambda: read_record(str(folder)) == record)
    await turn.release()


async def test_a_deadline_holds_while_the_disk_is_full(place: Place, small_disk: Path) -> None:
    turn = await place.launch(*PYTHON, WRITER, out_path=str(small_disk / "stdout"), grace_s=0.1)
    view = turn.view
    while not view.stalled:
        view = await turn.changed(view)
    await turn.renew(deadline=0.0)
    assert (await turn.ended()).reason == "deadline"


async def test_the_end_of_an_agent_waits_for_a_full_disk(place: Place, small_disk: Path) -> None:
    """It ended well while its last bytes were still in the pipe: they are not given up."""
    code = "import os, sys\nos.write(1, b'z' * 1040000); os.write(1, b'y' * 30000); sys.exit(0)"
    turn = await place.launch(*PYTHON, code, out_path=str(small_disk / "stdout"))
    await eventually(lambda: turn.view.stalled)
    await eventually(lambda: not Path(f"/proc/{turn.identity.agent_pid}").exists())
    assert turn.view.record is None
    make_room(small_disk)
    record = await turn.ended()
    assert (record.exit_code, record.stdout_bytes, record.discarded_bytes) == (0, 1_070_000, 0)


def test_a_file_that_was_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    path.write_bytes(b"one\ntwo\nthree\n")
    with OutputTail(path, offset=8) as tail:
        assert tail.read(10) == b"th"
        path.write_bytes(b"one\n")
        with pytest.raises(OutputTruncated):
            tail.size()
        with pytest.raises(OutputTruncated):
            tail.read(14)


async def test_reopening_standard_output_cuts_nothing(place: Place) -> None:
    """`> /dev/stdout` reopens the pipe, not our file: nothing can be cut by it."""
    turn = await place.launch("/bin/sh", "-c", "echo $$; echo second > /dev/stdout; echo third")
    await turn.ended()
    lines = (place.turns[0] / "stdout").read_text().splitlines()
    assert lines[1:] == ["second", "third"]
