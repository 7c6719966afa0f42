"""What the tokens of agents' own processes are signed with: one key of the installation, known to servers and workers.

It lies in the database, which no confined agent reaches. Taking it away there makes every such token worthless.
"""

from __future__ import annotations

import secrets
from typing import Final

from overnight.ports.unit_of_work import Transaction, UnitOfWork

_KEY: Final = "agent_key"


async def agent_key(uow: UnitOfWork) -> bytes:
    """The key; made by whoever asks first."""
    found = await uow.read(lambda tx: tx.installation.get(_KEY))
    return bytes.fromhex(found if found is not None else await uow.write(key_in))


def key_in(tx: Transaction) -> str:
    """The same within a unit that writes, in hex."""
    found = tx.installation.get(_KEY)
    if found is None:
        found = secrets.token_hex(32)
        tx.installation.put(_KEY, found)
    return found
