"""What changes under our hands: links, swapped folders, later mounts, and what an agent names in its own requests."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sandbox.estate import SECRET, Estate, Script, failure, put, run, surroundings

from overnight.backends.process.program import Command
from overnight.backends.process.walls import Walls
from overnight.domain.update import Warned
from overnight.errors import BackendFailure
from overnight.workspaces.sandbox import Bubblewrap
from overnight.workspaces.sandbox_network import Network

pytestmark = pytest.mark.anyio


async def test_another_folder_in_the_place_of_the_workspace_is_refused(place: Estate) -> None:
    """It was checked, and swapped for a link before the sandbox was made."""
    start = place.start_of("run_swapped")
    swap = f"mv {start.workspace} {start.workspace}.kept; {{}} {start.workspace}"
    writing = Script(argv=("/bin/sh", "-c", "echo mine > notes.txt"))
    for by in (f"ln -s {place.root}/public", "mkdir"):
        late = put(
            place.root / "bwrap-late",
            f'#!/bin/sh\n[ $# -gt 60 ] && {{ {swap.format(by)}; }}\nexec bwrap "$@"\n',
        )
        late.chmod(0o755)
        sandbox = Bubblewrap(surroundings(place.root), program=late, network=Network())
        assert sandbox.try_out().works
        told = await place.tell(writing, start, sandbox)
        assert failure(told) == "sandbox_failed", told
        start.workspace.unlink() if start.workspace.is_symlink() else start.workspace.rmdir()
        Path(f"{start.workspace}.kept").rename(start.workspace)
        start = replace(place.start_of("run_swapped"), workspace_id=start.workspace_id)
    start.workspace.rename(start.workspace.with_name("kept"))
    start.workspace.symlink_to(place.root / "public")
    with pytest.raises(BackendFailure, match="another folder"):
        await place.begin(writing, start)
    assert (place.root / "public/notes.txt").read_text() == "known to all"


async def test_links_in_git_lead_the_guards_nowhere(place: Estate) -> None:
    start = place.start_of("run_links")
    shutil.rmtree(start.workspace / ".git/modules")
    (start.workspace / ".git/modules").symlink_to(place.root / "public")
    shutil.rmtree(start.workspace / ".claude")
    (start.workspace / ".claude").symlink_to(place.root / "public")
    told = await place.tell(Script(argv=("/bin/sh", "-c", "echo x > .claude/notes.txt; echo lived")), start)
    assert told.lines == ["lived"]
    assert (place.root / "public/notes.txt").read_text() == "known to all"


async def test_what_would_lead_git_elsewhere_is_taken_back(place: Estate) -> None:
    """It was not there, so it could not be guarded. What was there before the turn is guarded, and stays."""
    start = place.start_of("run_redirects")
    theirs = put(start.workspace / ".git/modules/sub/commondir", ".")
    line = (
        "mkdir -p .git/evil/hooks && cp .git/config .git/evil/config && echo evil > .git/commondir && "
        "ln -s ../a.txt .git/config.worktree; echo evil > .git/modules/sub/commondir; echo made"
    )
    turn = await place.begin(Script(argv=("/bin/sh", "-c", line)), start)
    said = [update async for batch in turn.batches() for update in batch.updates]
    await turn.release()
    assert sorted(path.name for path in (start.workspace / ".git").iterdir() if "." in path.name) == []
    assert not (start.workspace / ".git/commondir").exists()
    assert (theirs.read_text(), (start.workspace / "a.txt").exists()) == (".", True)
    warned = [update for update in said if isinstance(update, Warned)]
    assert {update.code for update in warned} == {"git_redirected"}
    assert len(warned) == 2


async def test_a_git_file_is_kept_and_never_opens_what_lies_outside(place: Estate) -> None:
    start = place.start_of("run_gitfile")
    shutil.rmtree(start.workspace / ".git")
    outside = place.root / "repository"
    run("git", "init", "-q", "--bare", str(outside))
    put(start.workspace / ".git", f"gitdir: {outside}\n")
    line = f"echo 'gitdir: evil' > .git; mv .git x; echo x > {outside}/config; echo lived"
    told = await place.tell(Script(argv=("/bin/sh", "-c", line)), start)
    assert told.lines == ["lived"]
    assert (start.workspace / ".git").read_text() == f"gitdir: {outside}\n"
    assert (outside / "config").read_text() != "x\n"


async def test_what_an_agent_asks_to_be_run_opens_nothing(place: Estate) -> None:
    """Terminals of agents: the program and PATH that they name are not the operator's."""
    start = place.start_of("run_asked")
    ssh = place.root / "user/.ssh"
    command = Command(
        argv=("/bin/cat", f"{ssh}/id_ed25519"), env={"PATH": f"{ssh}:/usr/bin:/bin"}, cwd=start.workspace
    )
    walls = Walls(sandbox=place.sandbox, start=start)
    asked = [
        await walls.around_asked(command, path="/usr/bin:/bin"),
        await walls.around_asked(replace(command, argv=(f"{ssh}/id_ed25519",)), path="/usr/bin:/bin"),
    ]
    for confined in asked:
        assert str(ssh) not in confined.argv[: confined.argv.index("--")]
        ran = run(*confined.argv, env=dict(confined.env))
        assert SECRET not in ran.stdout
        assert ran.returncode != 0


MOUNT_LATER = """
import anyio, json, subprocess
from tests.sandbox.estate import Script, estate, finish
from overnight.testing.signals import eventually
async def main():
    with estate() as place:
        point = place.root / "mount-point"
        point.mkdir()
        line = f"echo ready; until [ -e go ]; do sleep 0.02; done; ls {point} | wc -l; touch {point}/planted"
        start = place.start_of()
        turn = await place.begin(Script(argv=("/bin/sh", "-c", line)), start)
        await eventually(lambda: (start.folder / "stdout").stat().st_size)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(point)], check=True)
        (point / "new").touch()
        (start.workspace / "go").touch()
        told = await finish(turn)
        print(json.dumps([told.lines, told.errors, place.sandbox.trial.note, sorted(p.name for p in point.iterdir())]))
        subprocess.run(["umount", str(point)], check=True)
anyio.run(main)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount something on the host")
def test_what_the_host_mounts_later_does_not_come_in() -> None:
    """On hosts whose mounts are shared, as systemd makes them; this one may have others, so it is made so."""
    line = f"mount --make-rshared / && exec {sys.executable} -c '{MOUNT_LATER}'"
    ran = run(
        "unshare",
        "--mount",
        "--propagation",
        "shared",
        "sh",
        "-c",
        line,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert ran.returncode == 0, ran.stderr
    lines, errors, note, found = json.loads(ran.stdout.splitlines()[-1])
    assert lines == ["ready", "0"]
    assert "Read-only file system" in errors
    assert (note, found) == ("network on", ["new"])


@pytest.mark.parametrize(
    "name, target, does",
    [
        (".vscode", "public", "echo mine > {root}/public/notes.txt; echo mine > .vscode/notes.txt"),
        (".mcp.json", "data/overnight.db", "cat .mcp.json {root}/data/overnight.db"),
        (".claude", "data", "cat .claude/overnight.db {root}/data/overnight.db"),
        (".git/modules", "public", "echo mine > {root}/public/notes.txt; echo mine > .git/modules/notes.txt"),
        ("my-hooks", "user/.ssh", "cat my-hooks/id_ed25519 {root}/user/.ssh/id_ed25519"),
    ],
)
async def test_a_guard_that_becomes_a_link_opens_nothing(
    place: Estate, name: str, target: str, does: str
) -> None:
    """Another process of the same agent swaps it for a link between the look at it and the mount."""
    start = place.start_of(f"run_late_{name.strip('.').replace('/', '-')}")
    work = start.workspace
    swap = f"mv {work}/{name} {work}/kept && ln -sr {place.root}/{target} {work}/{name}"
    late = put(place.root / "bwrap-late", f'#!/bin/sh\n[ $# -gt 60 ] && {{ {swap}; }}\nexec bwrap "$@"\n')
    late.chmod(0o755)
    sandbox = Bubblewrap(surroundings(place.root), program=late, network=Network())
    assert sandbox.try_out().works
    told = await place.tell(Script(argv=("/bin/sh", "-c", does.format(root=place.root))), start, sandbox)
    assert SECRET not in told.lines
    assert (place.root / "public/notes.txt").read_text() == "known to all"
    assert failure(told) == "sandbox_failed"


async def test_the_agents_environment_steers_nothing_but_the_agent(place: Estate) -> None:
    """Not the sandbox that is made around it, nor the last look: what an agent asks to be run has variables too."""
    asked = {
        "LD_DEBUG": "files", "LD_DEBUG_OUTPUT": f"{place.root}/public/loader", "BASH_ENV": f"{place.root}/public/x",
        "BASH_FUNC_stat%%": "() { echo mine; }", "PATH": "/nonexistent:/usr/bin:/bin", "PLAIN": "a b",
    }  # fmt: skip
    script = Script(argv=("/bin/sh", "-c", 'echo "$LD_DEBUG $PLAIN $PATH"'), env=asked)
    told = await place.tell(script, place.start_of())
    assert sorted(path.name for path in (place.root / "public").iterdir()) == ["notes.txt"]
    assert told.last == "files a b /nonexistent:/usr/bin:/bin"
