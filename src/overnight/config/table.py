"""Every setting as data: its name, where it may come from, its kind, its default and what it is for.

The loader, `overnight config show` and the reference page are all made from `SETTINGS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "text", "secret", "choice", "count", "seconds", "hours", "days", "bytes", "switch",
    "path", "paths", "names", "address", "url", "table",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: `key` is its dotted place in `overnight.toml`, `variable` its environment variable, if any."""

    key: str
    kind: Kind
    default: str | None
    """As it would be written in the environment; None: no value."""
    description: str
    variable: str | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        key="data_dir",
        variable="OVERNIGHT_DATA_DIR",
        kind="path",
        default="$XDG_DATA_HOME/overnight",
        description="Where the database, run folders and agent homes lie.",
    ),
    Setting(
        key="database_url",
        variable="OVERNIGHT_DATABASE_URL",
        kind="url",
        default="sqlite:///{data_dir}/overnight.db",
        description="The database: sqlite:/// and an absolute path, or postgresql://USER@HOST/DATABASE to be shared.",
    ),
    Setting(
        key="redis_url",
        variable="OVERNIGHT_REDIS_URL",
        kind="url",
        default=None,
        description="Redis or Valkey, which carries notices between servers and workers on Postgres. It never holds a "
        "fact; without it the notices go through the database.",
    ),
    Setting(
        key="url",
        variable="OVERNIGHT_URL",
        kind="text",
        default=None,
        description="The server that the commands talk to; without it, the one that serves the data directory.",
    ),
    Setting(
        key="server.listen",
        variable="OVERNIGHT_LISTEN",
        kind="address",
        default="127.0.0.1:4010",
        description="Address and port to listen on. Another machine can be let in only with TLS or behind a proxy.",
    ),
    Setting(
        key="server.token",
        variable="OVERNIGHT_TOKEN",
        kind="secret",
        default=None,
        description="A fixed token for the server and for the commands; without it one is made at the first start.",
    ),
    Setting(
        key="server.behind_proxy",
        variable="OVERNIGHT_BEHIND_PROXY",
        kind="switch",
        default="false",
        description="A reverse proxy with TLS stands in front, so listening beyond loopback is meant.",
    ),
    Setting(
        key="server.tls_certificate",
        variable="OVERNIGHT_TLS_CERTIFICATE",
        kind="path",
        default=None,
        description="PEM file of the certificate chain to serve HTTPS with.",
    ),
    Setting(
        key="server.tls_key",
        variable="OVERNIGHT_TLS_KEY",
        kind="path",
        default=None,
        description="PEM file of the private key that belongs to the certificate.",
    ),
    Setting(
        key="server.allowed_hosts",
        variable="OVERNIGHT_ALLOWED_HOSTS",
        kind="names",
        default="",
        description="Further host names by which browsers and clients may call the server.",
    ),
    Setting(
        key="server.keepalive_s",
        variable="OVERNIGHT_KEEPALIVE_S",
        kind="seconds",
        default="15",
        least=0.05,
        most=300,
        description="Pause after which a quiet stream gets a keep-alive comment.",
    ),
    Setting(
        key="server.max_connections",
        variable="OVERNIGHT_MAX_CONNECTIONS",
        kind="count",
        default="1000",
        least=1,
        most=100_000,
        description="Streams that may be open at once; above it new ones are refused with 429.",
    ),
    Setting(
        key="server.max_connections_per_user",
        variable="OVERNIGHT_MAX_CONNECTIONS_PER_USER",
        kind="count",
        default="100",
        least=1,
        most=100_000,
        description="The same for one user; that user's agents are counted apart.",
    ),
    Setting(
        key="workspace_roots",
        variable="OVERNIGHT_WORKSPACE_ROOTS",
        kind="paths",
        default="{home}:{cwd}",
        description="Directories beneath which workspaces may lie: by default the home directory (not itself, not its "
        "dot-directories) and the directory in which the server was started. A root that is named counts itself.",
    ),
    Setting(
        key="worker.slots",
        variable="OVERNIGHT_SLOTS",
        kind="count",
        default="8",
        least=1,
        most=10_000,
        description="Turns that may be under way at once.",
    ),
    Setting(
        key="worker.labels",
        variable="OVERNIGHT_WORKER_LABELS",
        kind="names",
        default="",
        description="What is special about this worker, as name=value: a run that is labelled worker/gpu=a100 goes "
        "only to workers with gpu=a100.",
    ),
    Setting(
        key="worker.backends",
        variable="OVERNIGHT_WORKER_BACKENDS",
        kind="names",
        default="",
        description="The backends for which this worker takes runs; without a value all that it knows.",
    ),
    Setting(
        key="worker.shared_roots",
        variable="OVERNIGHT_WORKER_SHARED_ROOTS",
        kind="paths",
        default=None,
        description="Directories that several hosts share under the same path: runs beneath them may go to any worker "
        "that names them too.",
    ),
    Setting(
        key="queue.backend_limits",
        kind="table",
        default=None,
        description="How many runs of a backend may be held at once by all workers together, such as codex = 4.",
    ),
    Setting(
        key="queue.label_limits",
        kind="table",
        default=None,
        description='The same for the runs with a label, such as "team=a" = 2.',
    ),
    Setting(
        key="queue.rates",
        kind="table",
        default=None,
        description='How many runs of a backend may be started in a time, such as codex = "30/hour": so many at once, '
        "then evenly. A run that comes back from a pause or a back-off counts again.",
    ),
    Setting(
        key="queue.quarantine_after",
        variable="OVERNIGHT_QUARANTINE_AFTER",
        kind="count",
        default="3",
        least=0,
        most=1000,
        description="A worker on which so many turns in a row could not even begin within ten minutes, or that lost "
        "its leases so often, gets no more runs until it is released; 0: never.",
    ),
    Setting(
        key="worker.lease_s",
        variable="OVERNIGHT_LEASE_S",
        kind="seconds",
        default="15",
        least=0.5,
        most=3600,
        description="How long a worker holds a run without renewing; it renews five times as often.",
    ),
    Setting(
        key="worker.grace_s",
        variable="OVERNIGHT_GRACE_S",
        kind="seconds",
        default="5",
        least=0.05,
        most=600,
        description="Time between the polite end of an agent and the hard one.",
    ),
    Setting(
        key="worker.poll_s",
        variable="OVERNIGHT_POLL_S",
        kind="seconds",
        default="1",
        least=0.01,
        most=60,
        description="The slow poll behind every notice: a lost notice costs at most this.",
    ),
    Setting(
        key="worker.backoff_s",
        variable="OVERNIGHT_BACKOFF_S",
        kind="seconds",
        default="2",
        least=0,
        most=300,
        description="First wait after a backend failure that may pass; it doubles, to at most five minutes.",
    ),
    Setting(
        key="storage.retention_days",
        variable="OVERNIGHT_RETENTION_DAYS",
        kind="days",
        default="30",
        least=0,
        most=36_500,
        description="How long runs that have ended are kept.",
    ),
    Setting(
        key="storage.max_bytes",
        variable="OVERNIGHT_MAX_BYTES",
        kind="bytes",
        default=None,
        least=1_048_576,
        description="Size of all data from whose 80 % on the oldest ended runs are removed.",
    ),
    Setting(
        key="storage.reserve_bytes",
        variable="OVERNIGHT_RESERVE_BYTES",
        kind="bytes",
        default="256MiB",
        least=0,
        description="Free disk below which new work is refused.",
    ),
    Setting(
        key="storage.synchronous",
        variable="OVERNIGHT_SYNCHRONOUS",
        kind="choice",
        choices=("full", "normal"),
        default="full",
        description="SQLite's durability: `normal` is quicker, and a power cut may cost the last moments.",
    ),
    Setting(
        key="runs.default_backend",
        variable="OVERNIGHT_DEFAULT_BACKEND",
        kind="text",
        default="{first_found}",
        description="Backend of a run that names none: without a value codex or claude, whichever is on PATH first, "
        "then the first that the file configures, then echo.",
    ),
    Setting(
        key="runs.max_sandbox",
        variable="OVERNIGHT_MAX_SANDBOX",
        kind="choice",
        choices=("read_only", "workspace_write", "full_access"),
        default="full_access",
        description="The widest sandbox that a run may ask for.",
    ),
    Setting(
        key="runs.min_policy",
        variable="OVERNIGHT_MIN_POLICY",
        kind="choice",
        choices=("autonomous", "ask_all", "ask_writes", "ask_outside_workspace", "plan_review"),
        default="autonomous",
        description="The approval policy below which no run may go.",
    ),
    Setting(
        key="runs.require_sandbox",
        variable="OVERNIGHT_REQUIRE_SANDBOX",
        kind="switch",
        default="false",
        description="Refuse runs whose sandbox this host cannot give.",
    ),
    Setting(
        key="sandbox.mode",
        variable="OVERNIGHT_SANDBOX_MODE",
        kind="choice",
        choices=("auto", "off"),
        default="auto",
        description="auto confines agents with bubblewrap wherever that works; off never does.",
    ),
    Setting(
        key="sandbox.program",
        variable="OVERNIGHT_SANDBOX_PROGRAM",
        kind="path",
        default=None,
        description="The bubblewrap program; without a value bwrap, found on PATH.",
    ),
    Setting(
        key="sandbox.network",
        variable="OVERNIGHT_SANDBOX_NETWORK",
        kind="names",
        default="on",
        description="What confined agents may reach: on, off, or a list of hosts (`host`, `host:port`, `*.host`).",
    ),
    Setting(
        key="sandbox.readable",
        variable="OVERNIGHT_SANDBOX_READABLE",
        kind="paths",
        default=None,
        description="Files and folders that confined agents would not see and may read.",
    ),
    Setting(
        key="sandbox.writable",
        variable="OVERNIGHT_SANDBOX_WRITABLE",
        kind="paths",
        default=None,
        description="Files and folders that every confined agent may change, whatever its run asks for; devices too.",
    ),
    Setting(
        key="sandbox.hidden",
        variable="OVERNIGHT_SANDBOX_HIDDEN",
        kind="paths",
        default=None,
        description="Further files and folders that no confined agent sees.",
    ),
    Setting(
        key="runs.allow_environment",
        variable="OVERNIGHT_ALLOW_ENVIRONMENT",
        kind="names",
        default="OVERNIGHT_VAR_*",
        description="Patterns of the environment variables that a run may set.",
    ),
    Setting(
        key="approvals.expires_s",
        variable="OVERNIGHT_APPROVALS_EXPIRES_S",
        kind="seconds",
        default="86400",
        least=1,
        most=31_536_000,
        description="After this an approval that nobody decided takes its default decision.",
    ),
    Setting(
        key="approvals.expires",
        kind="table",
        default=None,
        description="The same for single kinds: command, file_edit, tool_call, question, budget.",
    ),
    Setting(
        key="approvals.park_after_s",
        variable="OVERNIGHT_APPROVALS_PARK_AFTER_S",
        kind="seconds",
        default="900",
        least=0,
        most=31_536_000,
        description="An agent that waits for a person for so long is stopped; the decision starts its turn again.",
    ),
    Setting(
        key="approvals.rules",
        kind="table",
        default=None,
        description=(
            "Standing answers, one table each: effect (allow, ask, reject) and tool, argv, command, path or host."
        ),
    ),
    Setting(
        key="runs.max_limits",
        kind="table",
        default=None,
        description="Ceilings for the limits of a run, by the names that a run uses.",
    ),
    Setting(
        key="sessions.active_hours",
        variable="OVERNIGHT_SESSIONS_ACTIVE_HOURS",
        kind="hours",
        default="24",
        least=0.001,
        most=876_000,
        description="An active session without a live run that nobody touches expires after this.",
    ),
    Setting(
        key="sessions.suspended_days",
        variable="OVERNIGHT_SESSIONS_SUSPENDED_DAYS",
        kind="days",
        default="30",
        least=0.001,
        most=36_500,
        description="The same for a suspended one.",
    ),
    Setting(
        key="modes",
        kind="table",
        default=None,
        description="One table for each profile: base, label, description, and defaults for the fields of its runs.",
    ),
    Setting(
        key="secrets",
        kind="table",
        default=None,
        description='Values that runs may name: NAME = { env = "VARIABLE" } or NAME = { file = "/absolute/path" }.',
    ),
    Setting(
        key="backends",
        kind="table",
        default=None,
        description="One table for each backend: kind, program, command, args, environment, login, model, home.",
    ),
    Setting(
        key="log.level",
        variable="OVERNIGHT_LOG_LEVEL",
        kind="choice",
        choices=("debug", "info", "warning", "error"),
        default="info",
        description="The least important log lines that are written.",
    ),
    Setting(
        key="log.format",
        variable="OVERNIGHT_LOG_FORMAT",
        kind="choice",
        choices=("auto", "console", "json"),
        default="auto",
        description="How log lines look; auto is console on a terminal and JSON otherwise.",
    ),
    Setting(
        key="log.file",
        variable="OVERNIGHT_LOG_FILE",
        kind="path",
        default=None,
        description="File for log lines (always JSON) instead of standard error.",
    ),
)

CONFIG_VARIABLE: Final = "OVERNIGHT_CONFIG"
"""Names another configuration file than `overnight.toml` in the user's configuration folder."""

VAR_PREFIX: Final = "OVERNIGHT_VAR_"
"""Variables that are meant for agents, not for us."""
