"""What a Redis or Valkey server says about itself, for doctor."""

from __future__ import annotations

from dataclasses import dataclass

from redis.exceptions import ResponseError

from overnight.errors import Unavailable
from overnight.stores.redis.link import Address, Link
from overnight.stores.redis.resp import pack
from overnight.stores.relay.line import LineLost


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """One look. What a server does not tell (a user without the right to ask) is empty or 0."""

    name: str
    """`valkey` or `redis`."""
    version: str
    most_bytes: int
    """Of memory; 0: as much as there is."""
    used_bytes: int
    policy: str
    """What goes when the memory is full."""
    persistent: bool
    """Whether it writes what it has to disk."""
    clustered: bool


async def look(url: str) -> RedisFacts:
    """Ask the server. Raises Unavailable, whose words hold no password."""
    try:
        link = await Link.open(Address(url))
    except (LineLost, ValueError) as error:
        raise Unavailable(str(error)) from None
    try:
        (answer,) = await link.ask(pack(b"INFO"), 1)
    except LineLost as error:
        raise Unavailable(str(error)) from None
    finally:
        await link.close()
    told = {} if isinstance(answer, ResponseError) or answer is None else _pairs(bytes(answer))
    return RedisFacts(
        name="valkey" if "valkey_version" in told else "redis",
        version=told.get("valkey_version") or told.get("redis_version", ""),
        most_bytes=int(told.get("maxmemory", 0)),
        used_bytes=int(told.get("used_memory", 0)),
        policy=told.get("maxmemory_policy", ""),
        persistent=told.get("aof_enabled") == "1" or int(told.get("rdb_last_save_time", 0)) > _started(told),
        clustered=told.get("cluster_enabled") == "1",
    )


def _pairs(text: bytes) -> dict[str, str]:
    lines = (line.split(":", 1) for line in text.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value.strip() for name, value in lines}


def _started(told: dict[str, str]) -> int:
    """When it was started, in seconds: an earlier save was none of this process."""
    return int(told.get("server_time_usec", 0)) // 1_000_000 - int(told.get("uptime_in_seconds", 0)) + 1
