"""An agent that tries to get out. Standard library only; started as a program, with a JSON file of facts.

Each attempt returns what it got hold of, or nothing. One JSON object is printed at the end.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import Any

Facts = dict[str, Any]
LIBC = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
MNT_DETACH = 2
NEWNS, NEWUSER = 0x20000, 0x10000000
ATTEMPTS: list[Callable[[Facts], object]] = []


def attempt(function: Callable[[Facts], object]) -> Callable[[Facts], object]:
    ATTEMPTS.append(function)
    return function


def read(path: str) -> str:
    """The secret in a file; empty when it cannot be read or holds none."""
    try:
        with open(path, "rb") as file:
            text = file.read(100_000).decode("utf-8", "replace")
    except OSError:
        return ""
    return text if "s3cret" in text else ""


def write(path: str, text: str = "owned", flags: int = os.O_WRONLY | os.O_TRUNC | os.O_CREAT) -> str:
    try:
        handle = os.open(path, flags, 0o755)
    except OSError:
        return ""
    try:
        os.write(handle, text.encode())
    except OSError:
        return ""
    finally:
        os.close(handle)
    return f"wrote {path}"


def quietly(function: Callable[..., object], *arguments: object) -> str:
    try:
        function(*arguments)
    except OSError:
        return ""
    return f"{function.__name__}{arguments}"


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def run(*argv: str, cwd: str | None = None) -> bool:
    ran = subprocess.run(
        argv, cwd=cwd, capture_output=True, check=False, env={"PATH": os.environ["PATH"], "HOME": "/"}
    )
    return ran.returncode == 0


# -- what belongs to others ------------------------------------------------------------------------------------------


@attempt
def the_database(facts: Facts) -> object:
    return read(f"{facts['data']}/overnight.db")


@attempt
def the_database_upwards(facts: Facts) -> object:
    relative = os.path.relpath(f"{facts['data']}/overnight.db", facts["workspace"])
    handle = os.open(facts["workspace"], os.O_RDONLY)
    try:
        file = os.open(relative, os.O_RDONLY, dir_fd=handle)
    except OSError:
        return read(relative)
    finally:
        os.close(handle)
    with open(file, "rb") as opened:
        return opened.read(1000).decode()


@attempt
def the_database_by_a_link(facts: Facts) -> object:
    os.symlink(f"{facts['data']}/overnight.db", "link-to-database")
    return read("link-to-database")


@attempt
def the_keeper_key(facts: Facts) -> object:
    try:
        with open(f"{facts['data']}/keeper.key", encoding="ascii") as file:
            return len(file.read())
    except OSError:
        return ""


@attempt
def the_keepers_files(facts: Facts) -> object:
    return [
        name for name in ("keeper.json", "keeper.lock", "stdout") if os.path.exists(f"{facts['turn']}/{name}")
    ]


@attempt
def the_keepers_socket(facts: Facts) -> object:
    found = []
    for folder in (facts["turn"], facts["runtime"], "/run", "/var/run"):
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                try:
                    if not stat.S_ISSOCK(os.stat(path).st_mode):
                        continue
                    with socket.socket(socket.AF_UNIX) as sock:
                        sock.settimeout(1)
                        sock.connect(path)
                except OSError:
                    continue
                found.append(path)
    return found


@attempt
def another_home(facts: Facts) -> object:
    return read(f"{facts['data']}/homes/ses_other/agent/secret")


@attempt
def another_run(facts: Facts) -> object:
    return read(f"{facts['data']}/runs/run_other/workspace/secret")


@attempt
def a_listing_of_the_data(facts: Facts) -> object:
    try:
        known = {"homes", "runs", os.path.basename(facts["workspace"]), os.path.basename(facts["home"])}
        return sorted(set(os.listdir(facts["data"])) - known)
    except OSError:
        return []


@attempt
def server_json(facts: Facts) -> object:
    return read(f"{facts['runtime']}/server.json")


@attempt
def the_configuration(facts: Facts) -> object:
    return read(f"{facts['config']}/overnight.toml") or read(facts["key_file"])


@attempt
def the_users_dot_files(facts: Facts) -> object:
    names = (".ssh/id_ed25519", ".netrc", "keys/id_ed25519", "by-link")
    return [name for name in names if read(f"{facts['user_home']}/{name}")]


@attempt
def other_peoples_homes(facts: Facts) -> object:
    return [
        name
        for place in ("/home", "/root")
        for name in listed(place)
        if name[0] != "." and "work" not in name
    ]


@attempt
def temporary_files_of_others(facts: Facts) -> object:
    return read(facts["in_tmp"]) or read(facts["in_shm"])


@attempt
def roots_own_files(facts: Facts) -> object:
    return [path for path in ("/etc/shadow", "/etc/gshadow") if readable(path)]


def listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def readable(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


# -- other processes -------------------------------------------------------------------------------------------------


@attempt
def processes_of_others(facts: Facts) -> object:
    found = []
    for pid in pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if facts["mark"].encode() in file.read():
                    found.append(pid)
        except OSError:
            continue
    return found


@attempt
def the_database_through_proc(facts: Facts) -> object:
    own = os.stat("/").st_ino, os.stat("/").st_dev
    for pid in pids():
        for way in ("root", "cwd"):
            top = f"/proc/{pid}/{way}"
            if way == "root" and not facts["confined"]:
                own = (0, 0)
            if found := read(f"{top}{facts['data']}/overnight.db") or read(f"{top}/overnight.db"):
                return f"{top}: {found} {own}"
    return ""


@attempt
def descriptors_of_others(facts: Facts) -> object:
    for pid in pids():
        if pid == os.getpid():
            continue
        for name in listed(f"/proc/{pid}/fd"):
            try:
                regular = stat.S_ISREG(os.stat(f"/proc/{pid}/fd/{name}").st_mode)
            except OSError:
                continue
            if regular and (found := read(f"/proc/{pid}/fd/{name}")):
                return found
    return ""


@attempt
def tokens_in_the_environment_of_others(facts: Facts) -> object:
    return next((found for pid in pids() if (found := read(f"/proc/{pid}/environ"))), "")


@attempt
def a_token_in_the_own_environment(facts: Facts) -> object:
    return [name for name, value in os.environ.items() if "s3cret" in value or name.endswith("_TOKEN")]


@attempt
def signals_to_others(facts: Facts) -> object:
    return [pid for pid in facts["pids"] if quietly(os.kill, pid, 0)]


@attempt
def memory_of_others(facts: Facts) -> object:
    attach, detach = 16, 17
    for pid in facts["pids"][:1]:
        if LIBC.ptrace(attach, pid, 0, 0) == 0:
            os.waitpid(pid, 0)
            LIBC.ptrace(detach, pid, 0, 0)
            return pid
    return ""


@attempt
def inherited_descriptors(facts: Facts) -> object:
    found = []
    for number in range(3, 1024):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found


# -- what must not change --------------------------------------------------------------------------------------------


@attempt
def a_file_outside(facts: Facts) -> object:
    return write(facts["public"])


@attempt
def a_file_outside_by_hard_link(facts: Facts) -> object:
    try:
        os.link(facts["public"], "hard-link")
    except OSError:
        return ""
    return write("hard-link")


@attempt
def a_file_outside_by_symlink(facts: Facts) -> object:
    os.symlink(os.path.dirname(facts["public"]), "link-out")
    return write(f"link-out/{os.path.basename(facts['public'])}") or write("link-out/planted")


@attempt
def system_files(facts: Facts) -> object:
    places = ("/etc/planted-by-test", "/usr/planted-by-test", f"{facts['user_home']}/planted-by-test")
    found = [path for path in places if write(path)]
    for path in found:
        os.unlink(path)
    return found


@attempt
def kernel_settings(facts: Facts) -> object:
    """Opened for writing only: the control would change the host otherwise."""
    places = (
        "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/sys/power/state",
        "/sys/kernel/uevent_helper", "/proc/irq/default_smp_affinity", "/sys/module/kernel/parameters/panic",
    )  # fmt: skip
    return [path for path in places if os.path.exists(path) and write(path, "", os.O_WRONLY)]


@attempt
def control_groups(facts: Facts) -> object:
    for place, _, names in os.walk("/sys/fs/cgroup"):
        for name in names:
            if name in ("cgroup.procs", "release_agent", "cgroup.kill") and write(
                f"{place}/{name}", "", os.O_WRONLY
            ):
                return f"{place}/{name}"
    return ""


@attempt
def devices(facts: Facts) -> object:
    found = [
        name
        for name in os.listdir("/dev")
        if stat.S_ISBLK(os.stat(f"/dev/{name}", follow_symlinks=False).st_mode)
    ]
    if quietly(os.mknod, "a-device", stat.S_IFBLK | 0o600, os.makedev(254, 0)) and readable("a-device"):
        found.append("made one")
    return found


@attempt
def hooks(facts: Facts) -> object:
    return [way for way in (
        write(".git/hooks/pre-commit"),
        quietly(os.rename, ".git/hooks", ".git/hooks.old"),
        quietly(os.rmdir, ".git/hooks"),
        quietly(os.mkdir, ".git/hooks"),
        quietly(os.chmod, ".git/hooks", 0o777),
        write("my-hooks/pre-commit"),
    ) if way]  # fmt: skip


@attempt
def git_configuration(facts: Facts) -> object:
    return [way for way in (
        write(".git/config", "[core]\nfsmonitor = /bin/evil\n", os.O_WRONLY | os.O_APPEND),
        write(".git/config.lock") and quietly(os.rename, ".git/config.lock", ".git/config"),
        run("git", "config", "core.fsmonitor", "/bin/evil") and "git config",
        run("git", "config", "--worktree", "core.fsmonitor", "/bin/evil") and "git config --worktree",
        quietly(os.unlink, ".git/config"),
        write(".git/modules/sub/config", "[core]\nfsmonitor = /bin/evil\n", os.O_WRONLY | os.O_APPEND),
        quietly(os.rename, ".git/modules", ".git/modules.old"),
    ) if way]  # fmt: skip


@attempt
def another_git_folder(facts: Facts) -> object:
    """Last of those about git: in the control it leaves none."""
    if quietly(os.rename, ".git", ".git.old") or quietly(shutil.rmtree, ".git"):
        return quietly(os.symlink, "elsewhere", ".git") or "gone"
    return ""


@attempt
def settings_of_agents(facts: Facts) -> object:
    found = []
    for name in (".mcp.json", ".claude/settings.json", ".vscode/tasks.json", ".envrc"):
        found += [name] if write(name) else []
        found += [f"{name} renamed"] if quietly(os.rename, name, f"{name}.old") else []
    found += [name for name in (".claude", ".vscode") if quietly(os.rename, name, f"{name}.old")]
    return found


# -- the walls themselves --------------------------------------------------------------------------------------------


@attempt
def mounts(facts: Facts) -> object:
    def mount(source: str, target: str, kind: str, flags: int) -> bool:
        return bool(LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, None) == 0)

    os.makedirs("mount-point", exist_ok=True)
    found = []
    if mount("tmpfs", "mount-point", "tmpfs", 0):
        found.append("tmpfs")
        LIBC.umount2(b"mount-point", MNT_DETACH)
    if mount("/", "mount-point", "", MS_BIND):
        found.append("bind")
        LIBC.umount2(b"mount-point", MNT_DETACH)
    if facts["confined"]:
        for place in ("/", ".git/hooks", ".git/config", facts["data"], "/tmp"):
            found += [f"umount {place}"] if LIBC.umount2(place.encode(), MNT_DETACH) == 0 else []
            found += [f"remount {place}"] if mount("", place, "", MS_REMOUNT | MS_BIND) else []
    return found


@attempt
def a_namespace_of_its_own(facts: Facts) -> object:
    """In a child: what it changes must not outlive the attempt."""
    child = os.fork()
    if child == 0:
        free = LIBC.unshare(NEWUSER | NEWNS) == 0
        if free and facts["confined"]:
            for place in (".git/hooks", "/tmp", facts["data"]):
                LIBC.umount2(place.encode(), MNT_DETACH)
                LIBC.mount(b"", place.encode(), b"", MS_REMOUNT | MS_BIND, None)
            free = bool(write(".git/hooks/pre-commit") or read(f"{facts['data']}/overnight.db"))
        os._exit(1 if free else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@attempt
def other_namespaces(facts: Facts) -> object:
    for pid in (1, *facts["pids"]):
        for kind in ("mnt", "pid", "user", "net"):
            try:
                handle = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
            except OSError:
                continue
            own = os.stat(f"/proc/self/ns/{kind}").st_ino == os.fstat(handle).st_ino
            if not own and LIBC.setns(handle, 0) == 0:
                return f"{pid} {kind}"
    return ""


@attempt
def privileges(facts: Facts) -> object:
    with open("/proc/self/status", encoding="ascii") as file:
        told = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    sets = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(told[name], 16)]
    return sets + (["new privileges"] if told["NoNewPrivs"] == "0" else [])


@attempt
def the_hosts_name(facts: Facts) -> object:
    """Shared namespaces, by the numbers that the host told."""
    return [
        kind
        for kind, number in facts["namespaces"].items()
        if os.stat(f"/proc/self/ns/{kind}").st_ino == number
    ]


@attempt
def files_for_others(facts: Facts) -> object:
    """Said by the outside: these must not appear there."""
    write(f"/tmp/{facts['mark']}")
    write(f"/dev/shm/{facts['mark']}")
    write(f"/var/tmp/{facts['mark']}")
    return ""


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        facts = json.load(file)
    found: dict[str, object] = {}
    for function in ATTEMPTS:
        try:
            found[function.__name__] = function(facts)
        except Exception as error:  # noqa: BLE001  # whatever goes wrong in one attempt, the others are to be made
            found[function.__name__] = f"broken: {error!r}"
    os.write(1, json.dumps(found).encode() + b"\n")


main()
