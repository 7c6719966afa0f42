"""All settings together, checked against each other: what `compose` builds the program from."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from overnight.config import approvals, stores
from overnight.config.backends import BackendSettings, backends, default_backend
from overnight.config.models import keys, models
from overnight.config.models import shown as models_shown
from overnight.config.modes import modes
from overnight.config.parse import Value
from overnight.config.queue import QueueSettings, queue
from overnight.config.sandbox import SandboxSettings, sandbox
from overnight.config.secrets import secrets
from overnight.config.sources import Sources, read
from overnight.domain.documents import checked
from overnight.domain.json_values import Unfit
from overnight.domain.spec import ApprovalPolicy, LimitsSpec, Sandbox
from overnight.engine.policy import RunPolicy, SessionPolicy, Storage, Timing
from overnight.errors import ConfigInvalid
from overnight.models.endpoint import ModelSettings

_CREDENTIAL = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH")
SWEEP_S = 2.0
"""What the last sweep of the control ladder may take after the grace."""
MARGIN_S = 1.0
"""By how much agents that nobody renews are gone before another host may take their run."""
LEAST_SLACK_S = 0.5
"""How long an agent lives at least after a renewal, where it has to be gone in time."""
RENEWALS = 2.25
"""Renewals that fall into that time: one may fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server can be reached. Seconds."""

    host: str
    port: int
    token: str | None = field(repr=False)
    behind_proxy: bool
    tls_certificate: Path | None
    tls_key: Path | None
    allowed_hosts: tuple[str, ...]
    keepalive_s: float
    max_connections: int
    max_connections_per_user: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, how, and where; no file means standard error."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["auto", "console", "json"]
    file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the operator decided."""

    data_dir: Path
    database_url: str = field(repr=False)
    redis_url: str | None = field(default=None, repr=False)
    redis_stream_length: int = 2000
    redis_ttl_s: int = 3600
    server: ServerSettings
    log: LogSettings
    workspace_roots: tuple[Path, ...]
    slots: int
    queue: QueueSettings = field(default_factory=QueueSettings)
    runs: RunPolicy
    timing: Timing
    storage: Storage
    sessions: SessionPolicy
    synchronous: Literal["FULL", "NORMAL"]
    backends: tuple[BackendSettings, ...]
    sandbox: SandboxSettings
    models: ModelSettings = field(default_factory=ModelSettings, repr=False)
    sources: Sources = field(repr=False)

    @property
    def postgres(self) -> bool:
        """Whether the database is shared: several servers and workers, of which any may die."""
        return not self.database_url.startswith(stores.SQLITE)

    @property
    def database(self) -> Path:
        """The SQLite file. Raises ConfigInvalid where the database is none."""
        if self.postgres:
            raise ConfigInvalid(
                f"{self.database_shown} is no SQLite file", mend="use the tools of Postgres for this"
            )
        return Path(self.database_url.removeprefix(stores.SQLITE))

    @property
    def database_shown(self) -> str:
        """The database as it may be shown: without a password."""
        return stores.masked(self.database_url)

    @property
    def redis_shown(self) -> str | None:
        """The same of Redis."""
        return None if self.redis_url is None else stores.masked(self.redis_url)

    def shown(self) -> Iterator[dict[str, object]]:
        """One row a setting for `config show` and `GET /config`: key, value, origin; secrets are masked."""
        for found in self.sources.found.values():
            value, origin = self._effective(found.setting.key, found.value, found.origin)
            yield {"key": found.setting.key, "value": _shown(found.setting.kind, value), "origin": origin}

    def _effective(self, key: str, value: Value, origin: str) -> tuple[Value, str]:
        match key:
            case "database_url":
                return self.database_shown, origin
            case "redis_url":
                return self.redis_shown, origin
            case "runs.default_backend":
                return default_backend(self.sources, self.backends)
            case "secrets":
                return cast("Value", dict.fromkeys(self.runs.secrets, "***")), origin
            case "backends":
                return {backend.name: backend.shown() for backend in self.backends}, origin
            case "models.providers":
                return cast("Value", models_shown(self.models)), origin
            case _:
                return value, origin


def load(
    environment: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of this process: `overrides` (by dotted key, from the command line) go before the environment.

    Raises ConfigInvalid naming the setting, its value, its origin and how to mend it.
    """
    sources = read(environment, cwd=cwd, overrides=overrides)
    known = backends(sources)
    offered = models(sources)
    database_url = stores.database_url(sources)
    return Settings(
        data_dir=_path(sources, "data_dir"),
        database_url=database_url,
        redis_url=stores.redis_url(sources, database_url),
        redis_stream_length=cast("int", sources["redis.stream_length"]),
        redis_ttl_s=round(cast("float", sources["redis.ttl_s"])),
        server=_server(sources),
        log=_log(sources),
        workspace_roots=cast("tuple[Path, ...]", sources["workspace_roots"]),
        slots=cast("int", sources["worker.slots"]),
        queue=queue(sources, known),
        runs=_run_policy(sources, known, database_url, tuple(keys(offered))),
        timing=_timing(sources, shared=not database_url.startswith(stores.SQLITE)),
        storage=_storage(sources),
        sessions=SessionPolicy(
            active_hours=cast("float", sources["sessions.active_hours"]),
            suspended_days=cast("float", sources["sessions.suspended_days"]),
        ),
        synchronous="NORMAL" if sources["storage.synchronous"] == "normal" else "FULL",
        backends=known,
        sandbox=sandbox(sources),
        models=offered,
        sources=sources,
    )


def _server(sources: Sources) -> ServerSettings:
    host, port = cast("tuple[str, int]", sources["server.listen"])
    certificate = cast("Path | None", sources["server.tls_certificate"])
    key = cast("Path | None", sources["server.tls_key"])
    behind_proxy = cast("bool", sources["server.behind_proxy"])
    if (certificate is None) != (key is None):
        missing = "server.tls_key" if key is None else "server.tls_certificate"
        raise ConfigInvalid("a TLS certificate and its key go together", mend=f"set {missing} too")
    for name, file in (("server.tls_certificate", certificate), ("server.tls_key", key)):
        if file is not None and not file.is_file():
            raise sources.refuse(name, f"names {file}, which is no file")
    if not (_loopback(host) or certificate or behind_proxy):
        raise sources.refuse(
            "server.listen",
            f"would let other machines in at {host} without encryption",
            mend="listen on 127.0.0.1, set server.tls_certificate and server.tls_key, or say --behind-proxy",
        )
    return ServerSettings(
        host=host,
        port=port,
        token=_token(sources),
        behind_proxy=behind_proxy,
        tls_certificate=certificate,
        tls_key=key,
        allowed_hosts=cast("tuple[str, ...]", sources["server.allowed_hosts"]),
        keepalive_s=cast("float", sources["server.keepalive_s"]),
        max_connections=cast("int", sources["server.max_connections"]),
        max_connections_per_user=cast("int", sources["server.max_connections_per_user"]),
    )


def _loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(sources: Sources) -> str | None:
    token = cast("str | None", sources["server.token"])
    if token is not None and (len(token) < 20 or not token.isascii() or " " in token):
        raise sources.refuse(
            "server.token",
            "must be at least 20 ASCII characters without spaces",
            mend="try: openssl rand -hex 32",
        )
    return token


def _log(sources: Sources) -> LogSettings:
    return LogSettings(
        level=cast('Literal["debug", "info", "warning", "error"]', sources["log.level"]),
        format=cast('Literal["auto", "console", "json"]', sources["log.format"]),
        file=cast("Path | None", sources["log.file"]),
    )


def _timing(sources: Sources, *, shared: bool) -> Timing:
    """`shared`: another host may take a run over, so agents have to be gone before its lease is."""
    lease_s, grace_s = cast("float", sources["worker.lease_s"]), cast("float", sources["worker.grace_s"])
    slack_s = lease_s - grace_s - SWEEP_S - (MARGIN_S if shared else 0.0)
    least_s = grace_s + SWEEP_S + (MARGIN_S + LEAST_SLACK_S if shared else 0.0)
    if lease_s <= least_s:
        why = f", to be over {MARGIN_S:g} s before another host may take a run" if shared else ""
        raise sources.refuse(
            "worker.lease_s",
            f"is {lease_s:g}, too short for a grace of {grace_s:g} s and a sweep of {SWEEP_S:g} s{why}",
            mend=f"make the lease longer than {least_s:g} s, or worker.grace_s shorter",
        )
    return Timing(
        lease_s=lease_s,
        renew_s=min(lease_s / 5, slack_s / RENEWALS) if shared else lease_s / 5,
        grace_s=grace_s,
        poll_s=cast("float", sources["worker.poll_s"]),
        backoff_s=cast("float", sources["worker.backoff_s"]),
    )


def _storage(sources: Sources) -> Storage:
    return Storage(
        data_dir=_path(sources, "data_dir"),
        retention_days=cast("float", sources["storage.retention_days"]),
        max_bytes=cast("int | None", sources["storage.max_bytes"]),
        reserve_bytes=cast("int", sources["storage.reserve_bytes"]),
    )


def _run_policy(
    sources: Sources, known: tuple[BackendSettings, ...], database_url: str, keys: tuple[str, ...]
) -> RunPolicy:
    return RunPolicy(
        default_backend=default_backend(sources, known)[0],
        max_sandbox=cast("Sandbox", sources["runs.max_sandbox"]),
        min_policy=cast("ApprovalPolicy", sources["runs.min_policy"]),
        max_limits=_max_limits(sources),
        require_sandbox=cast("bool", sources["runs.require_sandbox"]),
        allow_environment=cast("tuple[str, ...]", sources["runs.allow_environment"]),
        secrets=secrets(sources),
        hidden=(*_hidden(sources, known, database_url), *keys),
        modes=modes(sources),
        approval_expires_s=cast("float", sources["approvals.expires_s"]),
        approval_expires=approvals.expiries(sources),
        park_after_s=cast("float", sources["approvals.park_after_s"]),
        rules=approvals.rules(sources),
    )


def _hidden(sources: Sources, known: tuple[BackendSettings, ...], database_url: str) -> tuple[str, ...]:
    """The server's own token and passwords, and what backends are given under a name that speaks of a credential."""
    given = [
        value
        for backend in known
        for name, value in backend.environment.items()
        if _CREDENTIAL.search(name.upper())
    ]
    given += stores.passwords(database_url, cast("str | None", sources["redis_url"]))
    token = _token(sources)
    return (*given, token) if token else tuple(given)


def _max_limits(sources: Sources) -> LimitsSpec | None:
    table = cast("dict[str, object]", sources["runs.max_limits"])
    if not table:
        return None
    try:
        return checked(LimitsSpec, _LOOSE | table)
    except Unfit as unfit:
        raise sources.in_table("runs.max_limits", unfit.path, f"does not fit: {unfit.message}") from None


# A ceiling that the operator does not name is as wide as a limit can be.
_LOOSE: dict[str, object] = {
    "turns": None,
    "turn_timeout_s": 604_800,
    "output_bytes": 1 << 40,
    "children": 100_000,
    "events": 100_000_000,
    "attempts": 100,
}


def _path(sources: Sources, key: str) -> Path:
    return cast("Path", sources[key])


def _shown(kind: str, value: Value) -> object:
    if kind == "secret" and value is not None:
        return "***"
    if kind == "address":
        host, port = cast("tuple[str, int]", value)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if kind == "table":
        return json.loads(json.dumps(value, default=str))
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return str(value) if isinstance(value, Path) else value
