"""Who may come in when the server starts: the operator's own token, and the one of `server.json`."""

from __future__ import annotations

from overnight.clock import Clock
from overnight.domain.request import LOCAL_OWNER
from overnight.domain.token import AccessToken, digest, new_secret
from overnight.errors import ConfigInvalid
from overnight.ids import HostId, new_host_id, new_token_id
from overnight.ports.unit_of_work import Transaction, UnitOfWork

COMMANDS = "commands"
"""Name of the token that `server.json` holds; every start makes a new one."""
CONFIGURED = "configured"
"""Name of the token that the configuration sets."""


async def host_id(uow: UnitOfWork, clock: Clock) -> HostId:
    """The id of this host, made at the first start."""

    def unit(tx: Transaction) -> HostId:
        known = tx.installation.get("host_id")
        if known is None:
            known = new_host_id(clock.wall_ms())
            tx.installation.put("host_id", known)
        return HostId(known)

    return await uow.write(unit)


async def token_for_commands(uow: UnitOfWork, clock: Clock) -> str:
    """A fresh secret for the commands of this user; an earlier start's is worthless from now on."""
    secret = new_secret()
    await uow.write(lambda tx: _replace(tx, COMMANDS, secret, clock.wall_ms()))
    return secret


async def configured_token(uow: UnitOfWork, clock: Clock, secret: str | None) -> None:
    """Let the configured secret in (None: none); one that was configured before and is no longer is revoked.

    Raises ConfigInvalid when the secret has been revoked before.
    """

    def unit(tx: Transaction) -> None:
        now = clock.wall_ms()
        known = tx.tokens.by_digest(digest(secret)) if secret else None
        if secret is None:
            _revoke(tx, CONFIGURED, now)
        elif known is None:
            _replace(tx, CONFIGURED, secret, now)
        elif not known.usable(now):
            raise ConfigInvalid(
                "the configured token (server.token) was revoked", mend="choose a fresh one, or leave it out"
            )

    await uow.write(unit)


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
