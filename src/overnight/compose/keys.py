"""Who may come in when the server starts: the operator's own token, and the one of `server.json`."""

from __future__ import annotations

from overnight.clock import Clock
from overnight.domain.request import LOCAL_OWNER
from overnight.domain.token import AccessToken, digest, new_secret
from overnight.errors import ConfigInvalid
from overnight.ids import HostId, new_token_id
from overnight.ports.unit_of_work import Transaction, UnitOfWork

COMMANDS = "commands"
"""Name of the token that `server.json` holds; every start makes a new one."""
CONFIGURED = "configured"
"""Name of the token that the configuration sets."""


async def token_for_commands(uow: UnitOfWork, clock: Clock, among: HostId | None) -> str:
    """A fresh secret for the commands of this user; an earlier start's is worthless from now on.

    `among`: the host, where several share the database and must not revoke each other's.
    """
    secret = new_secret()
    await uow.write(lambda tx: _replace(tx, _named(COMMANDS, among), secret, clock.wall_ms()))
    return secret


async def configured_token(uow: UnitOfWork, clock: Clock, secret: str | None, among: HostId | None) -> None:
    """Let the configured secret in (None: none); one that was configured before and is no longer is revoked.

    `among`: see `token_for_commands`. Raises ConfigInvalid when the secret has been revoked before.
    """
    name = _named(CONFIGURED, among)

    def unit(tx: Transaction) -> None:
        now = clock.wall_ms()
        known = tx.tokens.by_digest(digest(secret)) if secret else None
        if secret is None:
            _revoke(tx, name, now)
        elif known is None:
            _replace(tx, name, secret, now)
        elif not known.usable(now):
            raise ConfigInvalid(
                "the configured token (server.token) was revoked", mend="choose a fresh one, or leave it out"
            )

    await uow.write(unit)


def _named(name: str, among: HostId | None) -> str:
    return name if among is None else f"{name} on {among}"


def _replace(tx: Transaction, name: str, secret: str, now: int) -> None:
    _revoke(tx, name, now)
    tx.tokens.add(
        AccessToken(pk=0, id=new_token_id(now), owner=LOCAL_OWNER, name=name, kind="user", digest=digest(secret),
                    created_at=now)
    )  # fmt: skip


def _revoke(tx: Transaction, name: str, now: int) -> None:
    for token in tx.tokens.all(LOCAL_OWNER):
        if token.name == name and token.usable(now):
            tx.tokens.revoke(token.id, LOCAL_OWNER, now)
