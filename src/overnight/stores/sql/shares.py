"""To whom sessions are open besides their owners."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from sqlalchemy import bindparam, insert, select, update

from overnight.domain.session import Share
from overnight.errors import NotFound
from overnight.ids import ShareId
from overnight.stores.sql.context import Context
from overnight.stores.sql.people_schema import shares, token_shares
from overnight.stores.sql.schema import sessions, tokens
from overnight.stores.sql.statements import Row, Statement, key

_COLUMNS: Final = (
    "pk", "id", "session_pk", "kind", "user", "role", "digest", "actor", "created_at", "expires_at", "revoked_at",
)  # fmt: skip
_ROW: Final = (*(shares.c[name] for name in _COLUMNS), sessions.c.id, sessions.c.owner)
_TABLES: Final = shares.join(sessions, sessions.c.pk == shares.c.session_pk)
_FOUND: Final = select(*_ROW).select_from(_TABLES)
_ADD: Final = Statement(
    insert(shares).values({name: bindparam(name) for name in _COLUMNS if name != "pk"}).returning(shares.c.pk)
)
_OF_SESSION: Final = Statement(_FOUND.where(shares.c.session_pk == key("session")).order_by(shares.c.pk))
_OF_USER: Final = Statement(
    _FOUND.where(
        shares.c.session_pk == key("session"), shares.c.user == key("user"), shares.c.revoked_at.is_(None)
    )
)
_WITH_USER: Final = Statement(
    select(shares.c.session_pk).where(shares.c.user == key("user"), shares.c.revoked_at.is_(None))
)
_BY_DIGEST: Final = Statement(_FOUND.where(shares.c.digest == key("digest")))
_BY_ID: Final = Statement(_FOUND.where(shares.c.id == key("id"), shares.c.session_pk == key("session")))
_OF_TOKEN: Final = Statement(
    select(*_ROW)
    .select_from(_TABLES.join(token_shares, token_shares.c.share_pk == shares.c.pk))
    .where(token_shares.c.token_pk == key("token"))
)
_REVOKE: Final = Statement(
    update(shares)
    .where(shares.c.pk == key("pk"), shares.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("at"))
)
_REVOKE_TOKENS: Final = Statement(
    update(tokens)
    .where(
        tokens.c.pk.in_(select(token_shares.c.token_pk).where(token_shares.c.share_pk == key("share"))),
        tokens.c.revoked_at.is_(None),
    )
    .values(revoked_at=bindparam("at"))
)
_BIND: Final = Statement(insert(token_shares))


class SqlShareTable:
    """See `ports.tables.ShareTable`."""

    __slots__ = ("_link",)

    def __init__(self, context: Context) -> None:
        self._link = context.link

    def add(self, share: Share) -> Share:
        """See the port."""
        if share.user is not None:
            row = self._link.one(_OF_USER, key_session=share.session_pk, key_user=share.user)
            if row is not None:
                self._revoke(row[0], share.created_at)
        values = {name: getattr(share, name) for name in _COLUMNS if name not in ("pk", "actor")}
        row = self._link.one(_ADD, **values, actor=share.by)
        assert row is not None  # noqa: S101 -- INSERT … RETURNING always has one
        return replace(share, pk=row[0])

    def of_session(self, session_pk: int) -> tuple[Share, ...]:
        """See the port."""
        return tuple(map(_share, self._link.all(_OF_SESSION, key_session=session_pk)))

    def find(self, session_pk: int, user: str) -> Share | None:
        """See the port."""
        row = self._link.one(_OF_USER, key_session=session_pk, key_user=user)
        return _share(row) if row else None

    def with_user(self, user: str) -> tuple[int, ...]:
        """See the port."""
        return tuple(pk for (pk,) in self._link.all(_WITH_USER, key_user=user))

    def by_digest(self, digest: str) -> Share | None:
        """See the port."""
        row = self._link.one(_BY_DIGEST, key_digest=digest)
        return _share(row) if row else None

    def revoke(self, session_pk: int, share_id: ShareId, at: int) -> Share:
        """See the port."""
        row = self._link.one(_BY_ID, key_id=share_id, key_session=session_pk)
        if row is None:
            raise NotFound(f"no share {share_id}")
        share = _share(row)
        if share.revoked_at is not None:
            return share
        self._revoke(share.pk, at)
        return replace(share, revoked_at=at)

    def bind(self, token_pk: int, share_pk: int) -> None:
        """See the port."""
        self._link.run(_BIND, token_pk=token_pk, share_pk=share_pk)

    def of_token(self, token_pk: int) -> Share | None:
        """See the port."""
        row = self._link.one(_OF_TOKEN, key_token=token_pk)
        return _share(row) if row else None

    def _revoke(self, pk: int, at: int) -> None:
        self._link.run(_REVOKE, key_pk=pk, at=at)
        self._link.run(_REVOKE_TOKENS, key_share=pk, at=at)


def _share(row: Row) -> Share:
    found: dict[str, Any] = dict(zip((*_COLUMNS, "session_id", "owner"), row, strict=True))
    found["by"] = found.pop("actor")
    return Share(**found)
