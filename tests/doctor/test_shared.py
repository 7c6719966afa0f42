"""Doctor on a shared database and its carrier: real servers, each with something wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from overnight.clock import SystemClock
from overnight.compose import shared_looks
from overnight.compose.diagnosis import diagnose
from overnight.config.settings import load
from overnight.engine.doctor import Finding
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.redis import facts as redis_facts
from overnight.stores.sql import migrate, postgres_facts
from overnight.stores.sql.postgres import PostgresStore
from overnight.testing.clocks import ManualClock
from overnight.testing.services.postgres import PostgresServer
from overnight.testing.services.valkey import Valkey

SHOWN = "postgresql://db.example/overnight"


async def prepared(url: str) -> str:
    store = PostgresStore(url, SystemClock(), InprocNotifier())
    await store.start()
    await store.close()
    return url


async def found(url: str, clock: SystemClock | ManualClock | None = None) -> dict[str, Finding]:
    looks = shared_looks.postgres(url, SHOWN, clock or SystemClock())
    return {finding.name: finding for finding in [await look() for look in looks]}


@pytest.mark.anyio
async def test_a_sound_database(postgres_url: str) -> None:
    said = await found(await prepared(postgres_url))
    assert {finding.status for finding in said.values()} == {"ok"}, said
    assert f"schema {migrate.HEAD}" in said["database"].message
    assert set(said) == {"database", "database clock", "database durability", "database connections"}


@pytest.mark.anyio
async def test_what_is_out_of_order_is_told_with_its_mend(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    url = await prepared(postgres_url)
    name = url.partition("?")[0].rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    postgres_server.execute(f"ALTER DATABASE {name} SET idle_session_timeout = '30s'")
    postgres_server.execute("UPDATE alembic_version SET version_num = '0001'", name)
    late = ManualClock(wall_ms=1_700_000_000_000)
    said = await found(url, late)
    assert (said["database"].status, said["database"].mend) == ("fail", "overnight db upgrade")
    assert (said["database clock"].status, "NTP" in said["database clock"].mend) == ("warn", True)
    assert "switch on" in said["database durability"].message
    assert said["database connections"].status == "warn"
    assert "30 s" in said["database connections"].message


def test_facts_that_no_test_server_can_be_made_to_have() -> None:
    sound = postgres_facts.PostgresFacts(
        version="17.2", encoding="UTF8", revision=migrate.HEAD, usable_from=migrate.HEAD, fsync=True,
        full_page_writes=True, synchronous_commit="on", most_connections=97, connections=5, idle_session_ms=0,
        standby=False, skew_ms=3, answer_ms=0.4,
    )  # fmt: skip
    assert shared_looks.durability(replace(sound, fsync=False)).status == "warn"
    assert shared_looks.connections(replace(sound, connections=90)).status == "warn"
    assert shared_looks.server(replace(sound, standby=True), SHOWN).status == "fail"
    assert shared_looks.server(replace(sound, revision="9999"), SHOWN).status == "warn"
    assert shared_looks.server(replace(sound, answer_ms=80.0), SHOWN).status == "warn"
    assert shared_looks.clocks(replace(sound, skew_ms=-5000)).status == "warn"


@pytest.mark.anyio
async def test_a_database_that_is_away_is_told_without_its_password() -> None:
    said = await found("postgresql://overnight:verysecret@127.0.0.1:1/overnight")
    assert [name for name, finding in said.items() if finding.status == "fail"] == ["database"]
    assert "verysecret" not in repr(said)
    assert said["database"].mend


@pytest.mark.anyio
async def test_valkey(valkey: Valkey) -> None:
    finding = await shared_looks.redis(valkey.url, "valkey.example")()
    assert (finding.status, finding.name) == ("ok", "redis"), finding
    assert "valkey" in finding.message
    facts = await redis_facts.look(valkey.url)
    assert facts.version
    full = replace(facts, most_bytes=1_000_000, policy="noeviction", clustered=False)
    assert "allkeys-lru" in shared_looks.carrier(full, "x").mend
    assert shared_looks.carrier(replace(full, policy="allkeys-lru"), "x").status == "ok"
    assert "not supported" in shared_looks.carrier(replace(facts, clustered=True), "x").message


@pytest.mark.anyio
async def test_valkey_that_is_away_is_no_disaster() -> None:
    finding = await shared_looks.redis("redis://:verysecret@127.0.0.1:1", "valkey.example")()
    assert finding.status == "warn"
    assert "nothing is lost" in finding.message
    assert "verysecret" not in repr(finding)


def test_without_a_database_doctor_still_looks_at_the_rest(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "OVERNIGHT_DATABASE_URL": "postgresql://overnight:verysecret@127.0.0.1:1/overnight",
        "OVERNIGHT_REDIS_URL": "redis://127.0.0.1:1",
    }
    report = diagnose(load(environment, cwd=tmp_path))
    checks = cast("list[dict[str, str]]", report["checks"])
    status = {check["name"]: check["status"] for check in checks}
    assert report["status"] == "fail"
    assert (status["start_refused"], status["database"], status["redis"], status["python"]) == (
        "fail", "fail", "warn", "ok",
    )  # fmt: skip
    assert "verysecret" not in repr(report)
