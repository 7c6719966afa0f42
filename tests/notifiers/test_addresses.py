"""Addresses of Redis and Valkey that could never work are refused at once, and show no password."""

from __future__ import annotations

import pytest

from overnight.clock import SystemClock
from overnight.compose.ground import ground
from overnight.config.settings import load
from overnight.errors import ConfigInvalid
from overnight.stores.redis.link import Address


@pytest.mark.parametrize(
    "url",
    [
        "http://valkey.example", "redis://valkey.example/main", "redis://valkey.example/0/1", "unix://relative",
        "unix://", "redis://:hush-hush@valkey.example?colour=red", "redis://:hush-hush@valkey.example?socket_timeout=soon",
        "rediss://valkey.example?ssl_cert_reqs=perhaps",
    ],
)  # fmt: skip
def test_what_could_never_work_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"address|socket|database") as refused:
        Address(url)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "url, shown",
    [
        ("redis://valkey.example", "valkey.example:6379/0"),
        ("rediss://:hush-hush@valkey.example:7000/3", "valkey.example:7000/3"),
        ("unix:///run/valkey.sock", "/run/valkey.sock"),
        ("unix://:hush-hush@/run/valkey.sock?db=2", "/run/valkey.sock"),
        ("redis://valkey.example?health_check_interval=5", "valkey.example:6379/0"),
    ],
)
def test_what_may_work_is_taken(url: str, shown: str) -> None:
    assert Address(url).shown == shown


@pytest.mark.anyio
async def test_it_is_the_setting_that_is_named(tmp_path: object) -> None:
    given = {
        "HOME": str(tmp_path),
        "OVERNIGHT_DATABASE_URL": "postgresql://night@127.0.0.1:1/overnight",
        "OVERNIGHT_REDIS_URL": "redis://:hush-hush@valkey.example/main",
    }
    with pytest.raises(ConfigInvalid, match=r"redis_url \(environment OVERNIGHT_REDIS_URL\)") as refused:
        async with ground(load(given), SystemClock(), working=False):
            pass
    assert "hush" not in refused.value.detail
    assert refused.value.mend
