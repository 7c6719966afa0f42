"""The settings of what carries notices between servers."""

from __future__ import annotations

from typing import Final

from overnight.config.setting import Setting

NOTICES: Final[tuple[Setting, ...]] = (
    Setting(
        key="redis_url",
        variable="OVERNIGHT_REDIS_URL",
        kind="url",
        default=None,
        description="Redis or Valkey, which carries notices between servers and workers on Postgres. It never holds a "
        "fact; without it the notices go through the database.",
    ),
    Setting(
        key="redis.stream_length",
        variable="OVERNIGHT_REDIS_STREAM_LENGTH",
        kind="count",
        default="2000",
        least=100,
        most=1_000_000,
        description="Events of one run or session that Redis or Valkey keeps for live readers, about.",
    ),
    Setting(
        key="redis.ttl_s",
        variable="OVERNIGHT_REDIS_TTL_S",
        kind="seconds",
        default="3600",
        least=60,
        most=604_800,
        description="How long they stay there after the last of them; a minute after the end of a run.",
    ),
)
