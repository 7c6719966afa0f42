"""What server, spawner and keeper say to each other and leave on disk: protocol version 1, frozen.

One JSON object a line, UTF-8, over a unix stream socket. This module is loaded by the keeper, so it uses the standard
library only and no `dataclasses` (which would cost every keeper the memory of `inspect`).

Requests of a client to a keeper, each with a number `id` and the client's fencing `token`:

* `hello {versions, secret, token}` first; answered by `welcome {version, identity, state}`.
* `renew {orphan_deadline?, deadline?}`, `stdin {n, data}` (base64), `close_stdin {}`, `release {}`,
  `ladder {reason, grace_s?, interrupt?}`; each is answered by `ok {id, stdin_last}`. `interrupt` is an `Interrupt`, or
  true for the launch's own.
* `refused {id, code, detail}` answers whatever cannot be done; codes are in `Refusal`.

Pushed by a keeper: `grew {stdout, stderr, stalled}`, `surviving {count}`, `exited {record}`, `superseded {token}`.

A client asks a spawner by `launch {versions, turn_folder}` with one file descriptor (SCM_RIGHTS) that holds the JSON
of a `Launch`. The connection then belongs to the new keeper, which answers with `welcome` or `refused`. `ping {}` is
answered by `pong {version, pid, keepers, abilities}`; a connection that pinged holds the spawner.

A field that a reader does not know is skipped; a field that is missing has its default: so version 1 may grow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeVar

VERSIONS = (1,)
"""Protocol versions that this code speaks, best last."""

MAX_LINE = 64 * 1024 * 1024
"""Bytes of one message, line end included; whoever sends more is cut off."""

KEEPER_FILE = "keeper.json"
EXIT_FILE = "exit.json"
LOCK_FILE = "keeper.lock"
SOCKET_LINK = "keeper.sock"
SPAWNER_LOCK = "spawner.lock"
"""In the data directory: held by its one spawner."""

Reason = Literal[
    "exit",
    "stopped",
    "deadline",
    "output_limit",
    "children_limit",
    "fenced",
    "terminated",
    "keeper_lost",
    "never_started",
]
"""Why a turn's process ended: by itself, on a client's ladder, at a limit, because nobody renewed, because the keeper
was told to end, or because the keeper itself was killed (then whatever was left has been swept). `never_started` closes
a turn folder whose launch was not heard of again, so that it cannot come late."""

Refusal = Literal[
    "bad_message",
    "bad_secret",
    "stale_token",
    "stdin_gap",
    "stdin_full",
    "stdin_closed",
    "still_running",
    "turn_used",
    "start_failed",
    "no_common_version",
    "draining",
]

StepName = Literal["interrupt", "sigterm", "sigkill", "sweep"]


class Interrupt(NamedTuple):
    """The gentle first step of a ladder: a signal to the agent alone, or bytes on its stdin, or both."""

    signal: int | None = None
    data: str = ""
    """Base64. Not a numbered message: it is written behind those that were taken."""
    wait_s: float = 2.0
    """How long it may take before SIGTERM."""


class Limits(NamedTuple):
    """What a keeper enforces by its own clock. Times are seconds of the boot-time clock; None is no limit."""

    deadline: float | None = None
    """When the ladder begins, whoever renews."""
    orphan_deadline: float | None = None
    """When the ladder begins unless a `renew` has moved it."""
    output_bytes: int | None = None
    """Standard output and error together; exactly so many are kept."""
    children: int | None = None
    """Living processes of the tree, the agent and its wrappers not counted."""
    grace_s: float = 5.0
    """Between SIGTERM and SIGKILL."""
    linger_s: float = 600.0
    """How long a keeper stays after the end for someone to `release` it."""


class LaunchSpec(NamedTuple):
    """One agent process. Paths are absolute; `turn_folder` exists and has never been launched before."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment: nothing else is passed on."""
    cwd: str
    turn_folder: str
    out_path: str
    """Made by the keeper; must not exist."""
    err_path: str
    limits: Limits = Limits()
    stdin: str = ""
    """Base64. Message 1, taken together with the launch; empty means that there is none yet."""
    close_stdin: bool = False
    """Whether stdin is closed behind it."""
    interrupt: Interrupt | None = None
    """For ladders that the keeper begins by itself, and for `interrupt: true`."""
    umask: int = 0o022
    wrappers: int = 0
    """Processes of a sandbox above the agent, each the first child of the one before. They get no polite signal and
    count for no limit; the first tells a signal n that ended the agent as exit code 128 + n."""


class Launch(NamedTuple):
    """What the file descriptor of a `launch` holds: it never passes through the spawner."""

    spec: LaunchSpec
    token: int
    secret: str
    nonce: str
    """Public; stands in keeper.json, so that whoever has the key can find the secret again."""


class Identity(NamedTuple):
    """Who a keeper is: the content of keeper.json. A pid means something only together with the other fields."""

    version: int
    pid: int
    starttime: int
    boot_id: str
    pid_ns: int
    socket: str
    agent_pid: int
    """The process that was started: the first wrapper, where there are any."""
    agent_starttime: int
    started_at: float
    """Wall clock, seconds."""
    nonce: str
    pipes: tuple[int, ...] = ()
    """Inode numbers of the agent's three pipes: whoever holds one was started by it."""
    cgroup: str | None = None
    out_path: str = ""
    err_path: str = ""
    abilities: Mapping[str, bool] = {}
    wrappers: tuple[tuple[int, int], ...] = ()
    """Pid and start time of each process above the agent, added once they are there."""


class SpawnerIdentity(NamedTuple):
    """Who holds the spawner's lock: the content of the lock file."""

    pid: int
    starttime: int
    boot_id: str
    pid_ns: int


class Step(NamedTuple):
    """One thing that was done to end a turn. `at_s` counts from the start of the agent."""

    name: StepName
    at_s: float
    processes: int


class ExitRecord(NamedTuple):
    """How a turn's process ended: the content of exit.json."""

    reason: Reason
    exit_code: int | None
    """None when a signal ended it, or nobody saw it end."""
    signal: int | None
    started_at: float
    """Wall clock, seconds."""
    ended_at: float
    stdout_bytes: int
    stderr_bytes: int
    stdin_last: int = 0
    steps: tuple[Step, ...] = ()
    survivors: int | None = 0
    """Processes that could not be ended; None when nobody could look."""
    discarded_bytes: int = 0
    """Output over the limit, or that a full disk would not take before the grace was over."""
    detail: str = ""


class KeeperState(NamedTuple):
    """What a keeper tells whoever attaches."""

    phase: Literal["running", "stopping", "ended"]
    token: int
    agent_pid: int
    stdout_bytes: int
    stderr_bytes: int
    stdin_last: int
    stdin_closed: bool
    stalled: bool
    """The disk takes no more output; the agent waits."""
    deadline: float | None = None
    orphan_deadline: float | None = None
    record: ExitRecord | None = None


Value = TypeVar("Value", bound=tuple[Any, ...])


def encode(message: Mapping[str, object]) -> bytes:
    """One message as one line."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message in a line. Raises ValueError when it is no JSON object with a `type`."""
    found = json.loads(line)
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise ValueError("a message is a JSON object with a type")  # noqa: TRY004 - callers look for one kind of error
    return found


def agree(versions: object) -> int | None:
    """The best version that both sides speak."""
    offered = versions if isinstance(versions, list) else []
    return max((version for version in VERSIONS if version in offered), default=None)


def to_json(value: Any) -> Any:
    """A value of this module as plain JSON: named tuples become objects."""
    if isinstance(value, tuple):
        named: dict[str, Any] | None = value._asdict() if hasattr(value, "_asdict") else None
        if named is None:
            return [to_json(item) for item in value]
        return {name: to_json(item) for name, item in named.items()}
    return dict(value) if isinstance(value, Mapping) else value


def launch_from(data: Mapping[str, Any]) -> Launch:
    """The inverse of `to_json` for a `Launch`. Raises ValueError when it is not one."""
    spec = _read(LaunchSpec, data["spec"])
    limits = _read(Limits, data["spec"].get("limits", {}))
    interrupt = interrupt_from(data["spec"].get("interrupt"))
    spec = spec._replace(argv=tuple(spec.argv), limits=limits, interrupt=interrupt)
    return _read(Launch, data)._replace(spec=spec)


def interrupt_from(data: Mapping[str, Any] | None) -> Interrupt | None:
    """The inverse of `to_json` for an `Interrupt`. Raises ValueError when it is not one."""
    return None if data is None else _read(Interrupt, data)


def identity_from(data: Mapping[str, Any]) -> Identity:
    """The inverse of `to_json` for an `Identity`. Raises ValueError when it is not one."""
    found = _read(Identity, data)
    wrappers = tuple((int(pid), int(started)) for pid, started in found.wrappers)
    return found._replace(pipes=tuple(found.pipes), wrappers=wrappers)


def record_from(data: Mapping[str, Any]) -> ExitRecord:
    """The inverse of `to_json` for an `ExitRecord`. Raises ValueError when it is not one."""
    found = _read(ExitRecord, data)
    return found._replace(steps=tuple(_read(Step, step) for step in data.get("steps", ())))


def state_from(data: Mapping[str, Any]) -> KeeperState:
    """The inverse of `to_json` for a `KeeperState`. Raises ValueError when it is not one."""
    found = _read(KeeperState, data)
    return found._replace(record=record_from(data["record"]) if data.get("record") else None)


def read_object(path: str) -> dict[str, Any] | None:
    """The JSON object in a file; None when there is none, or what is there was cut short."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_identity(turn_folder: str) -> Identity | None:
    """The keeper that was started for this turn, dead or alive."""
    found = read_object(f"{turn_folder}/{KEEPER_FILE}")
    try:
        return identity_from(found) if found is not None else None
    except ValueError:
        return None


def read_spawner(data_dir: str) -> SpawnerIdentity | None:
    """The last spawner of a data directory, dead or alive."""
    found = read_object(f"{data_dir}/{SPAWNER_LOCK}")
    try:
        return _read(SpawnerIdentity, found) if found is not None else None
    except ValueError:
        return None


def read_record(turn_folder: str) -> ExitRecord | None:
    """How this turn's process ended, if that has been written down."""
    found = read_object(f"{turn_folder}/{EXIT_FILE}")
    try:
        return record_from(found) if found is not None else None
    except ValueError:
        return None


def spawner_socket(data_dir: str, runtime_dir: str) -> str:
    """Where the spawner of a data directory listens; directories may share one runtime directory."""
    place = os.stat(data_dir)
    return f"{runtime_dir}/s-{place.st_dev:x}-{place.st_ino:x}.sock"


def boot_id() -> str:
    """Identifies this boot of this machine; empty where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def pid_namespace() -> int:
    """Identifies the pid namespace of the caller: pids of another one mean other processes. 0 where there are none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name, state first; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    return text[text.rfind(b")") + 2 :].decode("ascii").split()


def starttime(pid: int) -> int:
    """When a process started, in ticks since boot; 0 when it is not there (any more)."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def is_same_process(pid: int, started: int, boot: str, namespace: int) -> bool:
    """Whether `pid` is still the living process that it was when these four were written down."""
    if started == 0 or (boot, namespace) != (boot_id(), pid_namespace()):
        return False
    fields = stat_fields(pid)
    return fields is not None and fields[0] not in "ZX" and int(fields[19]) == started


def _read(kind: type[Value], data: Mapping[str, Any]) -> Value:
    fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    try:
        return kind(**{name: data[name] for name in fields if name in data})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error
