"""Where the facts lie and what carries notices: a SQLite file, or Postgres with or without Redis or Valkey beside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from overnight.config.sources import Sources

SQLITE: Final = "sqlite:///"
MASK: Final = "***"
_POSTGRES: Final = ("postgresql", "postgres")
_REDIS: Final = {
    "redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix",
}  # fmt: skip
"""Schemes that are taken, and the one by which the library knows them."""
_USERINFO: Final = re.compile(r"(?<=://)(?P<user>[^:/?#]*):[^/?#]*@")
_IN_QUERY: Final = re.compile(r"(?<=[?&])(?P<name>(?:ssl)?password|passwd)=[^&#]*", re.IGNORECASE)


def database_url(sources: Sources) -> str:
    """`sqlite:////absolute/path` or `postgresql://…`. Raises ConfigInvalid that shows no password."""
    url = cast("str | None", sources["database_url"])
    if url is None:
        return f"{SQLITE}{cast('Path', sources['data_dir']) / 'overnight.db'}"
    if url.startswith("sqlite:"):
        if not url.startswith(f"{SQLITE}/"):
            raise sources.refuse(
                "database_url",
                "must be sqlite:/// and an absolute path",
                mend="such as sqlite:////srv/overnight.db",
            )
        return url
    scheme, separator, rest = url.partition("://")
    if scheme not in _POSTGRES or not separator or not _fits(url, several=True):
        raise sources.refuse(
            "database_url",
            "must be sqlite:/// and an absolute path, or postgresql://USER@HOST/DATABASE",
            mend="escape special characters of user and password as in any URL: %40 is @",
        )
    return f"postgresql://{rest}"


def redis_url(sources: Sources, database: str) -> str | None:
    """`redis://…` in the form that the library takes; None: notices go through the database, or stay in the process.

    Raises ConfigInvalid.
    """
    url = cast("str | None", sources["redis_url"])
    if url is None:
        return None
    scheme, separator, rest = url.partition("://")
    if scheme not in _REDIS or not separator or not _fits(url):
        raise sources.refuse(
            "redis_url",
            "must be redis://HOST, rediss://HOST, valkey://HOST or unix:///absolute/path",
            mend="escape special characters of user and password as in any URL: %40 is @",
        )
    if database.startswith(SQLITE):
        raise sources.refuse(
            "redis_url",
            "is set, but SQLite is the database of one process, which has nobody to share notices with",
            mend="unset it, or set database_url to a Postgres database",
        )
    return f"{_REDIS[scheme]}://{rest}"


def masked(url: str) -> str:
    """The address without its password."""
    return _IN_QUERY.sub(rf"\g<name>={MASK}", _USERINFO.sub(rf"\g<user>:{MASK}@", url))


def passwords(*urls: str | None) -> Iterator[str]:
    """What nobody may see of these addresses, as it is written and as it is meant."""
    for url in urls:
        if url is None or url.startswith(SQLITE):
            continue
        parts = urlsplit(url)
        written = parts.netloc.rpartition("@")[0].partition(":")[2]
        found = [written, unquote(written)]
        found += [
            value for name, value in parse_qsl(parts.query) if name.lower().endswith(("password", "passwd"))
        ]
        yield from dict.fromkeys(filter(None, found))


def _fits(url: str, *, several: bool = False) -> bool:
    """Whether it can be taken apart; `several` servers stand behind one another with commas between."""
    try:
        parts = urlsplit(url)
        place = parts.netloc.rpartition("@")[2]
        for host in place.split(",") if several else (place,):
            _ = urlsplit(f"//{host}").port
    except ValueError:
        return False
    return (
        "@" not in parts.path
    )  # there it follows a password with a slash in it, which nobody would take for one
