"""Which database and which carrier of notices: what goes together, what is refused, and what nobody sees."""

from pathlib import Path

import pytest
from tests.config.test_settings import loaded

from overnight.config.settings import MARGIN_S, RENEWALS, SWEEP_S
from overnight.domain.lease import keeper_deadline
from overnight.errors import ConfigInvalid

POSTGRES = "postgresql://night:h%40rd-to-guess@db.example:5433/overnight"


def shown(home: Path, **variables: str) -> dict[str, object]:
    return {str(row["key"]): row["value"] for row in loaded(home, **variables).shown()}


def test_postgres_and_valkey_are_taken_in_every_usual_spelling(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path, OVERNIGHT_DATABASE_URL="postgres://h/d", OVERNIGHT_REDIS_URL="valkeys://h:1/2"
    )
    assert (settings.postgres, settings.database_url) == (True, "postgresql://h/d")
    assert settings.redis_url == "rediss://h:1/2"
    assert (settings.redis_stream_length, settings.redis_ttl_s) == (2000, 3600)
    socket = loaded(tmp_path, OVERNIGHT_DATABASE_URL="postgresql:///d?host=/run/postgresql")
    assert (socket.postgres, socket.redis_url) == (True, None)
    assert not loaded(tmp_path).postgres


def test_several_servers_of_which_one_takes_writes(tmp_path: Path) -> None:
    url = "postgresql://night:hushhush@one:5433,two:5434/overnight"
    settings = loaded(tmp_path, OVERNIGHT_DATABASE_URL=url)
    assert settings.database_url == url
    assert settings.database_shown == "postgresql://night:***@one:5433,two:5434/overnight"
    assert "hushhush" in settings.runs.hidden


def test_no_password_is_shown_and_every_one_is_hidden(tmp_path: Path) -> None:
    variables = {"OVERNIGHT_DATABASE_URL": POSTGRES, "OVERNIGHT_REDIS_URL": "redis://:t%2Fop-secret@h/0"}
    rows = shown(tmp_path, **variables)
    assert rows["database_url"] == "postgresql://night:***@db.example:5433/overnight"
    assert rows["redis_url"] == "redis://:***@h/0"
    settings = loaded(tmp_path, **variables)
    assert not any(word in repr(settings) for word in ("guess", "op-secret"))
    assert {"h@rd-to-guess", "h%40rd-to-guess", "t/op-secret"} <= set(settings.runs.hidden)
    assert settings.runs.redactor().text("at h@rd-to-guess now") == "at [redacted] now"


def test_a_password_among_the_options_is_masked_too(tmp_path: Path) -> None:
    url = "postgresql:///d?host=/run&password=hushhush&sslpassword=quietly"
    settings = loaded(tmp_path, OVERNIGHT_DATABASE_URL=url)
    assert settings.database_shown == "postgresql:///d?host=/run&password=***&sslpassword=***"
    assert {"hushhush", "quietly"} <= set(settings.runs.hidden)


@pytest.mark.parametrize(
    "variable, value",
    [
        ("OVERNIGHT_DATABASE_URL", "mysql://u:hushhush@h/x"),
        ("OVERNIGHT_DATABASE_URL", "postgresql://u:hushhush@h:port/x"),
        ("OVERNIGHT_DATABASE_URL", "postgresql://u:hushhush@h:1,g:port/x"),
        ("OVERNIGHT_DATABASE_URL", "postgresql://u:12/hushhush@h/x"),
        ("OVERNIGHT_REDIS_URL", "http://:hushhush@h"),
        ("OVERNIGHT_REDIS_URL", "redis://:hushhush@h"),
    ],
)
def test_no_refusal_repeats_a_password(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        loaded(tmp_path, **{variable: value})
    assert "hushhush" not in f"{caught.value.detail} {caught.value.mend}"


def test_what_needs_the_file_says_that_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no SQLite file"):
        _ = loaded(tmp_path, OVERNIGHT_DATABASE_URL=POSTGRES).database


def test_agents_are_gone_before_another_host_takes_over_and_renewed_before_that(tmp_path: Path) -> None:
    for lease, grace in (("15", "5"), ("4", "0.25"), ("60", "30")):
        timing = loaded(
            tmp_path, OVERNIGHT_DATABASE_URL=POSTGRES, OVERNIGHT_LEASE_S=lease, OVERNIGHT_GRACE_S=grace
        ).timing
        deadline = keeper_deadline(0.0, timing.lease_s, timing.grace_s)
        assert deadline + timing.grace_s + SWEEP_S + MARGIN_S <= timing.lease_s
        assert timing.renew_s * RENEWALS <= deadline + 1e-9
        assert timing.renew_s <= timing.lease_s / 5


def test_a_lease_too_short_for_that_is_refused_where_hosts_share_a_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="before another host may take a run") as caught:
        loaded(tmp_path, OVERNIGHT_DATABASE_URL=POSTGRES, OVERNIGHT_LEASE_S="8")
    assert "longer than 8.5 s" in caught.value.mend
    assert loaded(tmp_path, OVERNIGHT_LEASE_S="8").timing.lease_s == 8
