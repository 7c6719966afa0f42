"""Whatever breaks while a patch is written, the tree is the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.agent.trees import Ground, Snapshot, ground_at, plant, snapshot, wrap

from overnight.agent.tools.apply_patch import JOURNALS, recover_patches
from overnight.agent.tools.patch.grammar import parse
from overnight.agent.tools.patch.journal import Journal, new_journal
from overnight.agent.tools.patch.plan import PatchFailed, make_plan
from overnight.agent.tools.patch.transaction import carry_out, recover

CALLS = ("open", "write", "fsync", "close", "link", "rename", "replace", "unlink", "mkdir", "fchmod", "stat")
"""Every call by which a patch is written. Those that only look may fail as well."""
FILES = {"a": "1\n2\n3\n", "gone": "x\n", "from": "m\n", "there": "t\n", "sub/b": "b\n"}
BODY = (
    "*** Update File: a\n 1\n-2\n+two\n*** Delete File: gone\n*** Update File: from\n*** Move to: there\n-m\n+M\n"
    "*** Add File: new/deep/er\n+n\n*** Update File: sub/b\n-b\n+B\n*** Add File: sub/c\n+c"
)


class Fault:
    """Fails the `at`-th call of those in `CALLS`, and, if it `lasts`, every one that follows."""

    def __init__(self, at: int, *, lasts: bool = False, code: int = errno.ENOSPC) -> None:
        self._at = at
        self._lasts = lasts
        self._code = code
        self.calls = 0

    def guard(self, real: Callable[..., object]) -> Callable[..., object]:
        def guarded(*args: object, **options: object) -> object:
            self.calls += 1
            if self.calls == self._at or (self._lasts and self.calls > self._at):
                if real is REAL["close"]:
                    real(*args)  # a descriptor is closed whatever close says
                raise OSError(self._code, os.strerror(self._code))
            return real(*args, **options)

        return guarded


REAL: dict[str, Callable[..., object]] = {name: getattr(os, name) for name in CALLS}
REAL["fsync"] = lambda _: None  # no power is cut here, and waiting for the disk a thousand times takes long


@contextlib.contextmanager
def failing(fault: Fault) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, fault.guard(REAL[name]))
        yield


def prepared(place: Path) -> contextlib.AbstractContextManager[Ground]:
    place.mkdir()
    return ground_at(place)


def write(ground: Ground) -> None:
    plan = make_plan(ground.context.workspace.fd, [], parse(wrap(BODY)))
    carry_out(ground.context.workspace.fd, plan.changes, ground.context.folder / JOURNALS)


@pytest.fixture(scope="module")
def new_tree(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """What the workspace is when nothing fails."""
    with prepared(tmp_path_factory.mktemp("whole") / "x") as ground:
        plant(ground.root, FILES)
        write(ground)
        return snapshot(ground.root)


def how_many(place: Path) -> int:
    with prepared(place) as ground:
        plant(ground.root, FILES)
        plan = make_plan(ground.context.workspace.fd, [], parse(wrap(BODY)))
        fault = Fault(0)
        with failing(fault):
            carry_out(ground.context.workspace.fd, plan.changes, ground.context.folder / JOURNALS)
        return fault.calls


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EPERM], ids=errno.errorcode.get)
def test_any_one_call_may_fail(tmp_path: Path, new_tree: Snapshot, code: int) -> None:
    calls = how_many(tmp_path / "count")
    assert calls > 100
    outcomes = set()
    for at in range(1, calls + 1):
        with prepared(tmp_path / f"{at}") as ground:
            outcomes.add(one_fault(ground, Fault(at, code=code), new_tree))
            ground.assert_outside_untouched()
    assert outcomes == {"failed", "done"}


def one_fault(ground: Ground, fault: Fault, new_tree: Snapshot) -> str:
    plant(ground.root, FILES)
    old = snapshot(ground.root)
    plan = make_plan(ground.context.workspace.fd, [], parse(wrap(BODY)))
    place = ground.context.folder / JOURNALS
    said = ""
    with failing(fault):
        try:
            carry_out(ground.context.workspace.fd, plan.changes, place)
        except PatchFailed as refused:
            said = str(refused)
    if "nothing was changed" not in said:
        # Setting back, or only tidying up, has failed as well.
        assert not said or "set back before the next patch" in said
        recover(ground.context.workspace.fd, place)
    outcome = "failed" if said else "done"
    assert snapshot(ground.root) == (old if outcome == "failed" else new_tree)
    recover(ground.context.workspace.fd, place)
    assert list(place.glob("*.json")) == []
    return outcome


def test_nothing_works_from_some_call_on(tmp_path: Path, new_tree: Snapshot) -> None:
    """As on a disk that goes away: setting back fails too, and is done when the disk is there again."""
    for at in range(1, how_many(tmp_path / "count") + 1):
        with prepared(tmp_path / f"{at}") as ground:
            one_fault(ground, Fault(at, lasts=True, code=errno.EIO), new_tree)


KILLED = """
import os, pathlib, signal, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
from tests.agent.test_patch_faults import BODY, CALLS, REAL, die_at
from tests.agent.trees import wrap
from overnight.agent.tools.apply_patch import JOURNALS
from overnight.agent.tools.patch.grammar import parse
from overnight.agent.tools.patch.plan import make_plan
from overnight.agent.tools.patch.transaction import carry_out
from overnight.agent.tools.workspace import open_workspace
for line in sys.stdin:
    at, place = line.rstrip().split(" ", 1)
    if (child := os.fork()) == 0:
        with open_workspace(pathlib.Path(place, "workspace")) as workspace:
            plan = make_plan(workspace.fd, [], parse(wrap(BODY)))
            die_at(int(at))
            carry_out(workspace.fd, plan.changes, pathlib.Path(place, "own", JOURNALS))
            os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def die_at(at: int) -> None:
    """Kill this process before the `at`-th call."""
    calls = 0

    def guard(real: Callable[..., object]) -> Callable[..., object]:
        def guarded(*args: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return guarded

    for name in CALLS:
        setattr(os, name, guard(REAL[name]))


def test_whoever_kills_it_between_two_calls_finds_it_whole_after_recovery(
    tmp_path: Path, new_tree: Snapshot
) -> None:
    calls = how_many(tmp_path / "count")
    program = subprocess.Popen(
        [sys.executable, "-c", KILLED, os.pathsep.join(sys.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        trees = []
        for at in range(1, calls + 2):
            place = tmp_path / f"{at}"
            with prepared(place) as ground:
                plant(ground.root, FILES)
                old = snapshot(ground.root)
                program.stdin.write(f"{at} {place}\n")
                program.stdin.flush()
                assert int(program.stdout.readline()) == (signal.SIGKILL if at <= calls else 0)
                recover_patches(ground.context)
                trees.append(snapshot(ground.root))
                assert trees[-1] in (old, new_tree), at
                assert list((place / "own" / JOURNALS).glob("*.json")) == []
                ground.assert_outside_untouched()
        program.stdin.close()
    # Once it is through it stays through: there is one moment from which on it is done.
    done = [tree == new_tree for tree in trees]
    assert done == sorted(done)
    assert 0 < done.count(True) < len(done)


def test_a_file_system_without_hard_links(ground: Ground, new_tree: Snapshot) -> None:
    plant(ground.root, FILES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", no_links)
        write(ground)
    assert snapshot(ground.root) == new_tree


def no_links(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_without_hard_links_any_one_call_may_fail_too(
    tmp_path: Path, new_tree: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REAL, "link", no_links)
    for at in range(1, how_many(tmp_path / "count") + 1, 3):
        with prepared(tmp_path / f"{at}") as ground:
            one_fault(ground, Fault(at), new_tree)


def test_somebody_else_changes_a_file_meanwhile(ground: Ground) -> None:
    plant(ground.root, FILES)
    plan = make_plan(ground.context.workspace.fd, [], parse(wrap(BODY)))
    for name, content in {"a": "1\n2\n3\n4\n", "sub/c": "mine\n"}.items():
        ground_before = snapshot(ground.root)
        plant(ground.root, {name: content})
        changed = snapshot(ground.root)
        with pytest.raises(PatchFailed, match="changed by somebody else"):
            carry_out(ground.context.workspace.fd, plan.changes, ground.context.folder / JOURNALS)
        assert snapshot(ground.root) == changed != ground_before


def test_a_patch_at_work_is_not_taken_back_by_another(ground: Ground) -> None:
    plant(ground.root, FILES)
    place = ground.context.folder / JOURNALS
    seen: list[tuple[str, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        real = os.replace

        def replacing(*args: object, **options: object) -> None:
            seen.append(recover(ground.context.workspace.fd, place))
            real(*args, **options)  # type: ignore[arg-type]

        patch.setattr(os, "replace", replacing)
        write(ground)
    assert len(seen) > 3
    assert set(seen) == {()}
    assert ground.read("a") == b"1\ntwo\n3\n"


@pytest.mark.parametrize("text", [
    "", "{", "[]", "{}", '{"version": 2}',
    '{"version": 1, "workspace": [1], "steps": [], "folders": [], "done": false}',
    '{"version": 1, "workspace": [1, 2], "steps": [["a", "../x", null, null]], "folders": [], "done": false}',
])  # fmt: skip
def test_a_journal_that_cannot_be_read_is_thrown_away(ground: Ground, text: str) -> None:
    place = ground.context.folder / JOURNALS
    plant(place, {"x.json": text})
    assert recover_patches(ground.context) == ()
    assert os.listdir(place) == []


def test_a_journal_leads_nowhere_outside(ground: Ground) -> None:
    """Whoever can write there could as well write anywhere; still, no path in it is trusted."""
    plant(ground.root, {"x.old": "evil\n"})
    (ground.root / "link").symlink_to(ground.outside)
    status = ground.root.stat()
    place = ground.context.folder / JOURNALS
    for path in ("../outside/precious.txt", "link/precious.txt", "/etc/x", ""):
        steps = f'[["{path}", null, "precious.txt", [{status.st_dev}, 1]]]'
        plant(place, {"x.json": (
            f'{{"version": 1, "workspace": [{status.st_dev}, {status.st_ino}], "steps": {steps}, '
            '"folders": ["../outside/deep", "link/deep"], "done": false}'
        )})  # fmt: skip
        recover_patches(ground.context)
    ground.assert_outside_untouched()


def test_the_journal_of_another_workspace_is_left_alone(ground: Ground) -> None:
    place = ground.context.folder / JOURNALS
    plant(place, {"x.json": '{"version": 1, "workspace": [1, 2], "steps": [], "folders": [], "done": false}'})
    assert recover_patches(ground.context) == ()
    assert (place / "x.json").exists()


def test_another_folder_for_journals(ground: Ground, tmp_path: Path) -> None:
    """An agent that begins anew has another folder of its own, and finds what was left all the same."""
    place = tmp_path / "shared"
    plant(place, {"x.json": "{"})
    recover_patches(dataclasses.replace(ground.context, journals=place))
    assert os.listdir(place) == []


def test_a_journal_leaves_nothing_behind(ground: Ground) -> None:
    place = ground.context.folder / JOURNALS
    with new_journal(place) as journal:
        assert isinstance(journal, Journal)
    assert os.listdir(place) == []
    plant(ground.root, FILES)
    write(ground)
    assert os.listdir(place) == []
