"""When a model is asked again after its stream has failed, and how long to wait before. Pure.

The waits grow as the reference client of Codex lets them: 200 ms, doubled each time, a tenth more or less; a hint of
the service counts where it is longer. A request is repeated as a whole: nothing that ran because of an answer is run
again, for an answer that was cut off never got that far.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from overnight.errors import ModelError

FIRST_S: Final = 0.2
LONGEST_S: Final = 60.0
_HINT: Final = re.compile(r"try again in (\d+(?:\.\d+)?) ?(ms|s|m)\b", re.IGNORECASE)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often one request is repeated. `jitter` gives a number from 0.9 to 1.1."""

    retries: int = 5
    longest_s: float = LONGEST_S
    jitter: Callable[[], float] = lambda: 1.0

    def wait(self, tries: int, error: ModelError) -> float | None:
        """Seconds to wait before another try, after `tries` have failed; None: give up, `error` is final."""
        if not error.retryable or tries > self.retries:
            return None
        hinted = hint_of(error)
        if hinted is not None and hinted > self.longest_s:
            return None
        grown = FIRST_S * 2.0 ** (tries - 1) * self.jitter()
        return min(max(grown, hinted or 0.0), self.longest_s)


def hint_of(error: ModelError) -> float | None:
    """How many seconds the service wants to be left alone, as it said."""
    if error.retry_after_s is not None:
        return error.retry_after_s
    found = _HINT.search(error.detail)
    return None if found is None else float(found[1]) * _UNITS[found[2].lower()]
