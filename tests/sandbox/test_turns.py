"""What a confined agent may do, what it is shown, and what becomes of a turn whose sandbox cannot be made."""

import os
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sandbox.estate import SECRET, Estate, Script, failure, put, surroundings

from overnight.backends.command.backend import CommandProgram
from overnight.backends.process.backend import ProcessBackend
from overnight.backends.process.settings import ProgramSettings, lend
from overnight.clock import SystemClock
from overnight.domain.backend import BackendCheck, Capabilities, Problem
from overnight.errors import BackendFailure
from overnight.workspaces import sandbox_trial
from overnight.workspaces.sandbox import Bubblewrap, NoSandbox
from overnight.workspaces.sandbox_network import Network

pytestmark = pytest.mark.anyio


# -- what may be done ------------------------------------------------------------------------------------------------


async def test_the_workspace_the_home_and_temporary_files_are_the_agents_own(place: Estate) -> None:
    told = await place.sh(
        'echo x > new.txt && mkdir d && mv new.txt d && echo y > "$HOME/notes" && echo z > /tmp/t && cat /tmp/t '
        '&& echo "$TMPDIR" && echo q > /dev/shm/q && ls -A /tmp /dev/shm | tr "\\n" " "',
        env={"TMPDIR": "/somewhere"},
    )
    workspace, home = place.folders("run_x")
    assert (told.lines, told.errors) == (["z", "/tmp", "/dev/shm:q/tmp:t"], "") or told.lines[:2] == [
        "z",
        "/tmp",
    ]
    assert (workspace / "d/new.txt").read_text() == "x\n"
    assert (home / "notes").read_text() == "y\n"


async def test_a_commit_can_be_made_and_a_branch_switched(place: Estate) -> None:
    told = await place.sh(
        "git checkout -q -b work && echo b > b.txt && git add b.txt && git commit -qm b && git log --oneline | wc -l "
        "&& git stash list && git gc -q && git status --short b.txt && echo fine",
        name="run_git",
    )
    assert told.last == "fine", told.errors


async def test_a_workspace_that_may_only_be_read(place: Estate) -> None:
    told = await place.sh('touch a; echo y > "$HOME/x"; cat a.txt; echo " $(cat $HOME/x)"', level="read_only")
    assert told.last == "{} y"
    assert "Read-only file system" in told.errors


async def test_full_access_is_no_sandbox(place: Estate) -> None:
    told = await place.sh(f"cat {place.data}/overnight.db", level="full_access")
    assert told.last == SECRET


async def test_the_program_is_told_what_confines_it(place: Estate) -> None:
    script = Script(argv=("/bin/sh", "-c", "echo $OVERNIGHT_SANDBOX"), env={"OVERNIGHT_SANDBOX": "?"})
    told = await place.tell(script, place.start_of(sandbox="read_only"))
    assert told.last == "read_only"
    assert script.told[0].sandbox == "full_access"  # its own sandbox would only be in the way


async def test_a_command_backend_finds_its_script_wherever_that_lies(place: Estate, tmp_path: Path) -> None:
    script = put(tmp_path / "agent.sh", "echo started $OVERNIGHT_SANDBOX")
    settings = ProgramSettings(
        name="mine", command=("/bin/sh", str(script)), host={"PATH": os.environ["PATH"]}
    )
    backend = ProcessBackend(
        CommandProgram(settings, SystemClock()), place.keepers.spawner, clock=SystemClock(), data_dir=place.data,
        sandbox=place.sandbox,
    )  # fmt: skip
    turn = await backend.start(place.start_of(), lambda *_: None)  # type: ignore[arg-type]
    said = [update async for batch in turn.batches() for update in batch.updates]
    await turn.release()
    assert "started workspace_write" in str(said)


# -- what is shown ---------------------------------------------------------------------------------------------------


async def test_of_the_users_home_all_but_the_dot_files(place: Estate) -> None:
    told = await place.sh(f"cd {place.root}/user && ls -A && cat project/readme && ls keys/ && touch here")
    assert told.lines[0].split() == ["by-link", "keys", "project"] or "by-link" in told.lines
    assert "known to all" in told.lines
    assert "Read-only file system" in told.errors or "keys" in told.errors


@pytest.mark.parametrize(
    "folder, whole",
    [(".tool/bin", ".tool/bin"), (".pyenv/shims", ".pyenv"), (".local/share/apps/bin", ".local/share/apps")],
)
async def test_programs_in_dot_folders_are_found_and_little_besides(
    place: Estate, folder: str, whole: str
) -> None:
    user = place.root / "user"
    program = put(user / folder / "my-tool", "#!/bin/sh\necho found\n")
    program.chmod(0o755)
    put(user / Path(folder).parts[0] / "credentials")
    try:
        path = f"{program.parent}:{os.environ['PATH']}"
        told = await place.sh(f"my-tool; cd {user}; find . -name my-tool; ls -A", env={"PATH": path})
        assert told.lines[:2] == ["found", f"./{folder}/my-tool"]
        hidden = await place.sh(f"cat {user}/{Path(folder).parts[0]}/credentials", env={"PATH": path})
        assert (hidden.lines == [SECRET]) == (whole == Path(folder).parts[0])
    finally:
        shutil.rmtree(user / Path(folder).parts[0])


async def test_links_in_a_folder_of_programs_lead_somewhere(place: Estate) -> None:
    """As pipx and uv install: a link in .local/bin, the program elsewhere beneath .local."""
    user = place.root / "user"
    program = put(user / ".local/pipx/venvs/tool/bin/tool", "#!/bin/sh\necho found\n")
    program.chmod(0o755)
    put(user / ".local/share/keyrings/login")
    (user / ".local/bin").mkdir()
    (user / ".local/bin/tool").symlink_to(program)
    try:
        env = {"PATH": f"{user}/.local/bin:/usr/bin:/bin"}
        told = await place.sh(f"tool; cat {user}/.local/share/keyrings/login", env=env)
        assert told.lines == ["found"]
    finally:
        shutil.rmtree(user / ".local")


async def test_a_lent_credential_is_reachable_and_nothing_beside_it(place: Estate) -> None:
    user = place.root / "user"
    real = put(user / ".codex/auth.json", "login")
    put(user / ".codex/history.jsonl")
    settings = ProgramSettings(name="codex", login="user", user_home=user)
    start = place.start_of("run_lent")
    try:
        lent = lend(settings, ".codex/auth.json", start.home / "auth.json")
        line = f'cat "$HOME/auth.json"; echo renewed > "$HOME/auth.json"; cat {user}/.codex/history.jsonl'
        told = await place.tell(Script(argv=("/bin/sh", "-c", line), writable=lent), start)
        assert told.lines == ["login"]
        assert "No such file" in told.errors
        assert real.read_text() == "renewed\n"
    finally:
        shutil.rmtree(user / ".codex")


async def test_the_operators_exceptions_and_that_our_own_stays_hidden(place: Estate) -> None:
    listener = socket.socket(socket.AF_UNIX)
    root = place.root
    put(root / "user/.config/tool/settings", "shown")
    (root / "shared").mkdir()
    around = surroundings(
        root,
        readable=(root / "user/.config/tool", root, root / "data/homes"),
        writable=(root / "shared", root / "data", root / "data/runs"),
        hidden=(root / "user/project",),
    )
    sandbox = Bubblewrap(around, network=Network())
    sandbox.try_out()
    line = (
        f"cat {root}/user/.config/tool/settings; echo x > {root}/shared/file; cat {root}/data/overnight.db "
        f"{root}/data/homes/ses_other/agent/secret {root}/data/runs/run_other/workspace/secret "
        f"{root}/user/project/readme"
    )
    told = await place.tell(Script(argv=("/bin/sh", "-c", line)), place.start_of(), sandbox)
    listener.close()
    assert told.lines == ["shown"]
    assert (root / "shared/file").read_text() == "x\n"


async def test_a_home_with_very_many_things_in_it(place: Estate) -> None:
    """Each would be a mount: then the dot files are what is hidden, one by one."""
    crowded = place.root / "crowded"
    for number in range(400):
        put(crowded / f"file-{number}", "shown")
    put(crowded / ".netrc")
    put(crowded / ".ssh/key")
    sandbox = Bubblewrap(replace(surroundings(place.root), user_home=crowded), network=Network())
    sandbox.try_out()
    line = f"cd {crowded}; cat file-399 .netrc .ssh/key; touch file-new"
    told = await place.tell(Script(argv=("/bin/sh", "-c", line)), place.start_of(), sandbox)
    assert told.lines == ["shown"]
    assert "Read-only file system" in told.errors


async def test_off_is_a_loopback_of_its_own(place: Estate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ask = (
            "import socket\n"
            f"try: socket.create_connection(('127.0.0.1', {port}), 2); print('reached')\n"
            "except OSError: print('nobody')\n"
            "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 2); print('own')\n"
        )
        script = Script(argv=(sys.executable, "-I", "-S", "-c", ask))
        shared = await place.tell(script, place.start_of())
        cut = Bubblewrap(surroundings(place.root), network=Network(allowed="off"))
        assert cut.try_out().note == "network off"
        alone = await place.tell(script, place.start_of(), cut)
    assert (shared.lines, alone.lines) == (["reached", "own"], ["nobody", "own"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only a server that runs as root meets folders of other users")
async def test_a_root_that_could_not_write_says_so_before_the_agent_finds_out(place: Estate) -> None:
    start = place.start_of("run_foreign")
    os.chown(start.workspace, 12345, 12345)
    with pytest.raises(BackendFailure, match="belongs to user 12345") as refused:
        await place.begin(Script(argv=("/bin/true",)), start)
    assert refused.value.failure_code == "sandbox_failed"


# -- when there is no sandbox ----------------------------------------------------------------------------------------


async def test_a_sandbox_that_breaks_later_fails_the_turn_and_never_runs_it_without(place: Estate) -> None:
    program = put(
        place.root / "bwrap",
        '#!/bin/sh\n[ -e "$0.broken" ] && { echo "bwrap: no" >&2; exit 1; }\nexec bwrap "$@"\n',
    )
    program.chmod(0o755)
    sandbox = Bubblewrap(surroundings(place.root), program=program, network=Network())
    assert sandbox.try_out().works
    put(place.root / "bwrap.broken", "")
    assert not sandbox.try_out().works
    assert sandbox.trial.works
    told = await place.tell(
        Script(argv=("/bin/sh", "-c", "touch ran; echo ran")), place.start_of("run_broken"), sandbox
    )
    assert (failure(told), told.lines) == ("sandbox_failed", [])
    program.unlink()
    with pytest.raises(BackendFailure, match="the agent was not started"):
        await place.begin(Script(argv=("/bin/true",)), place.start_of("run_broken"), sandbox)
    assert not (place.folders("run_broken")[0] / "ran").exists()


def test_a_host_without_bubblewrap_is_told_how_to_get_it(tmp_path: Path) -> None:
    sandbox = Bubblewrap(surroundings(tmp_path), program=tmp_path / "none", network=Network())
    assert not sandbox.trial.works
    trial = sandbox.try_out()
    assert (trial.works, trial.version) == (False, None)
    assert "apt install bubblewrap" in trial.mend


def test_a_host_that_forbids_namespaces_is_told_what_to_allow(tmp_path: Path) -> None:
    line = '[ "$1" = --version ] && echo bubblewrap 0.8.0 && exit\necho "bwrap: setting up uid map: no" >&2; exit 1'
    program = put(tmp_path / "bwrap", f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    trial = Bubblewrap(surroundings(tmp_path), program=program, network=Network()).try_out()
    assert (trial.works, trial.version) == (False, "0.8.0")
    assert "setting up uid map" in trial.problem
    assert "user namespaces" in trial.mend


def test_a_host_whose_later_mounts_would_come_in_is_told_so(
    place: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_trial, "_mounts_are_shared", lambda: True)
    cut_off = Bubblewrap(surroundings(place.root), network=Network()).try_out()
    assert (cut_off.works, cut_off.note, cut_off.mend) == (True, "network on", "")
    monkeypatch.setattr(sandbox_trial, "_before", lambda: iter([()]))
    weaker = Bubblewrap(surroundings(place.root), network=Network()).try_out()
    assert weaker.works
    assert "mounts during a turn" in weaker.note
    assert "unshare" in weaker.mend


def test_an_older_bubblewrap_is_used_as_it_is(place: Estate) -> None:
    said = (
        'for each; do [ "$each" = --disable-userns ] && { echo "bwrap: Unknown option" >&2; exit 1; }; done'
    )
    old = put(place.root / "bwrap-old", f'#!/bin/sh\n{said}\nexec bwrap "$@"\n')
    old.chmod(0o755)
    sandbox = Bubblewrap(surroundings(place.root), program=old, network=Network())
    assert sandbox.try_out().works


async def test_without_a_sandbox_the_program_is_left_to_confine_itself(place: Estate) -> None:
    script = Script(
        argv=("/bin/sh", "-c", "echo $OVERNIGHT_SANDBOX"), capabilities=Capabilities(sandbox=("read_only",))
    )
    backend = ProcessBackend(
        script, place.keepers.spawner, clock=SystemClock(), data_dir=place.data, sandbox=NoSandbox()
    )
    assert backend.capabilities.sandbox == ("read_only",)
    assert not NoSandbox().try_out().works
    assert script.command(replace(place.start_of(), sandbox="read_only")).argv == script.argv


async def test_a_preflight_no_longer_complains_of_the_programs_own_sandbox(place: Estate) -> None:
    class Complaining(Script):
        async def check(self) -> BackendCheck:
            own = Problem(code="sandbox_unavailable", message="no namespaces for me")
            return BackendCheck(
                name="script", status="warn", capabilities=Capabilities(), problems=(own,), checked_at=0
            )

    check = await place.backend(Complaining(argv=("/bin/true",))).check()
    assert (check.status, check.problems) == ("ok", ())
    assert check.capabilities.sandbox == ("read_only", "workspace_write", "full_access")
