"""The token of an agent's own process: derived, so that starting a turn writes nothing. Pure.

It names one attempt at one turn of one run, signed with a key of that run, which is derived from a key that only
servers and workers know; a worker elsewhere is given the keys of its own runs and no other. The token goes on being
good where another process takes the agent over, and is worth nothing once the turn is tried again, the next one begins,
or the run has ended: whoever checks it looks at the run.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from overnight.ids import RunId

PREFIX: Final = "ova_"
_FORM: Final = re.compile(r"ova_(run_[0-9a-z]{26})\.([0-9]{1,9})\.([0-9]{1,9})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whom the token lets in, as long as that attempt at that turn is the run's latest."""

    run_id: RunId
    turn: int
    attempt: int


def key_of_run(key: bytes, run_id: RunId) -> bytes:
    """What the tokens of that run are signed with."""
    return _mac(key, f"overnight agent key\n{run_id}").digest()


def agent_secret(run_key: bytes, claim: Claim) -> str:
    """The token for that attempt."""
    return f"{PREFIX}{claim.run_id}.{claim.turn}.{claim.attempt}.{_signature(run_key, claim)}"


def claimed(key: bytes, secret: str) -> Claim | None:
    """What a token claims; None when it was not made with a key that comes from `key`."""
    found = _FORM.fullmatch(secret)
    if found is None:
        return None
    claim = Claim(run_id=RunId(found[1]), turn=int(found[2]), attempt=int(found[3]))
    return claim if hmac.compare_digest(_signature(key_of_run(key, claim.run_id), claim), found[4]) else None


def _signature(run_key: bytes, claim: Claim) -> str:
    return _mac(run_key, f"overnight agent token\n{claim.run_id}\n{claim.turn}\n{claim.attempt}").hexdigest()


def _mac(key: bytes, said: str) -> hmac.HMAC:
    return hmac.new(key, said.encode(), hashlib.sha256)
