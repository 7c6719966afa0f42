"""The token of an agent's own process: derived, so that starting a turn writes nothing. Pure.

It names one hold of one run: the run's id and its fencing token, signed with a key that only servers and workers know.
When the run is held anew, or has ended, it is worth nothing any more; whoever checks it looks at the run.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from overnight.ids import RunId

PREFIX: Final = "ova_"
_FORM: Final = re.compile(r"ova_(run_[0-9a-z]{26})\.([0-9]{1,15})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whom the token lets in, as long as that run is held with that fencing token."""

    run_id: RunId
    fence: int


def agent_secret(key: bytes, claim: Claim) -> str:
    """The token for that hold."""
    return f"{PREFIX}{claim.run_id}.{claim.fence}.{_signature(key, claim)}"


def claimed(key: bytes, secret: str) -> Claim | None:
    """What a token claims; None when it was not made with `key`."""
    found = _FORM.fullmatch(secret)
    if found is None:
        return None
    claim = Claim(run_id=RunId(found[1]), fence=int(found[2]))
    return claim if hmac.compare_digest(_signature(key, claim), found[3]) else None


def _signature(key: bytes, claim: Claim) -> str:
    said = f"overnight agent token\n{claim.run_id}\n{claim.fence}"
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()
