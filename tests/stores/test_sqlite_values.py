"""What is bound to a statement on SQLite comes back as it was."""

from pathlib import Path

import pytest

from overnight.stores.sql.connections import Connections
from overnight.stores.sql.sqlite_link import SqliteLink


@pytest.fixture
def link(tmp_path: Path) -> SqliteLink:
    return Connections(tmp_path / "values.db", "NORMAL").open(writing=True)


@pytest.mark.parametrize(
    "value",
    [None, b"", b"\x00\xff", "", "a\x00b", "naïve 🌙", 0, -(1 << 63), (1 << 63) - 1, "x" * 3_000_000],
    ids=lambda value: repr(value)[:12],
)
def test_a_value_comes_back_as_it_was(link: SqliteLink, value: object) -> None:
    assert link.rows("SELECT ?, typeof(?)", value, value)[0][0] == value
    link.close()


def test_null_stays_null_and_bytes_stay_bytes(link: SqliteLink) -> None:
    assert link.rows("SELECT typeof(?), typeof(?), typeof(?)", None, b"", "") == [("null", "blob", "text")]
    link.close()


def test_what_sqlite_cannot_keep_is_still_refused(link: SqliteLink) -> None:
    with pytest.raises(Exception, match="supported"):
        link.rows("SELECT ?", object())
    link.close()
