"""Access tokens, by the hash of their secret."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sqlalchemy import bindparam, insert, or_, select, update

from overnight.domain.token import AccessToken
from overnight.errors import Conflict, NotFound
from overnight.stores.sql.context import Context
from overnight.stores.sql.schema import tokens
from overnight.stores.sql.statements import Row, Statement, key, text_key

_COLUMNS: Final = (
    "pk", "id", "owner", "name", "kind", "digest", "created_at", "last_used_at", "expires_at", "revoked_at",
)  # fmt: skip
_ROW: Final = tuple(tokens.c[name] for name in _COLUMNS)
_ANY_OWNER: Final = (text_key("owner").is_(None)) | (tokens.c.owner == text_key("owner"))
_ADD: Final = Statement(
    insert(tokens).values({name: bindparam(name) for name in _COLUMNS if name != "pk"}).returning(tokens.c.pk)
)
_NAMED: Final = Statement(
    select(tokens.c.pk).where(
        tokens.c.owner == text_key("owner"), tokens.c.name == key("name"), tokens.c.revoked_at.is_(None)
    )
)
_BY_DIGEST: Final = Statement(select(*_ROW).where(tokens.c.digest == key("digest")))
_ALL: Final = Statement(select(*_ROW).where(_ANY_OWNER).order_by(tokens.c.created_at, tokens.c.pk))
_FIND: Final = Statement(
    select(*_ROW)
    .where(or_(tokens.c.id == key("name"), tokens.c.name == key("name")), _ANY_OWNER)
    .order_by(tokens.c.revoked_at.is_not(None), tokens.c.pk.desc())
    .limit(1)
)
_REVOKE: Final = Statement(update(tokens).where(tokens.c.pk == key("pk")).values(revoked_at=bindparam("at")))
_USED: Final = Statement(update(tokens).where(tokens.c.pk == key("pk")).values(last_used_at=bindparam("at")))


class SqlTokenTable:
    """See `ports.tables.TokenTable`."""

    __slots__ = ("_link",)

    def __init__(self, context: Context) -> None:
        self._link = context.link

    def add(self, token: AccessToken) -> AccessToken:
        """See the port."""
        if self._link.one(_NAMED, key_owner=token.owner, key_name=token.name) is not None:
            raise Conflict(f"there is a token named {token.name!r} already")
        row = self._link.one(_ADD, **{name: getattr(token, name) for name in _COLUMNS})
        assert row is not None  # noqa: S101 -- INSERT … RETURNING always has one
        return replace(token, pk=row[0])

    def by_digest(self, digest: str) -> AccessToken | None:
        """See the port."""
        row = self._link.one(_BY_DIGEST, key_digest=digest)
        return _token(row) if row else None

    def all(self, owner: str | None) -> tuple[AccessToken, ...]:
        """See the port."""
        return tuple(map(_token, self._link.all(_ALL, key_owner=owner)))

    def revoke(self, name: str, owner: str | None, at: int) -> AccessToken:
        """See the port. Where several had the name, the one that can still be used goes first."""
        row = self._link.one(_FIND, key_name=name, key_owner=owner)
        if row is None:
            raise NotFound(f"no token {name!r}")
        token = _token(row)
        if token.revoked_at is not None:
            return token
        self._link.run(_REVOKE, key_pk=token.pk, at=at)
        return replace(token, revoked_at=at)

    def used(self, pk: int, at: int) -> None:
        """See the port."""
        self._link.run(_USED, key_pk=pk, at=at)


def _token(row: Row) -> AccessToken:
    return AccessToken(**dict(zip(_COLUMNS, row, strict=True)))
