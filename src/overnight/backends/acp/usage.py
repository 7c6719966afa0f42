"""Usage and cost of one turn, from the several places where programs tell them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from overnight.backends.acp.script import Script
from overnight.backends.acp.shapes import as_object, whole
from overnight.domain.values import Usage


class Spending:
    """Adds up what one turn has cost so far."""

    def __init__(self, script: Script) -> None:
        self._style = script.usage
        self._before = script.cost_before
        self._sum = Usage()
        self.cost = script.cost_before
        """The session's cost in dollars, as last told."""
        self._cost_told = False

    def chunk(self, meta: Mapping[str, Any]) -> Usage | None:
        """The usage that a piece of a message carries along, added up; None where none is told."""
        told = as_object(meta.get("usage"))
        if self._style != "chunks" or not told:
            return None
        self._sum += _usage(told)
        return self._sum

    def session_cost(self, told: Mapping[str, Any]) -> None:
        """What an update tells of the session's cost so far."""
        cost = as_object(told.get("cost"))
        amount = cost.get("amount")
        if isinstance(amount, int | float) and cost.get("currency", "USD") == "USD":
            self._cost_told, self.cost = True, float(amount)

    def result(self, result: Mapping[str, Any]) -> Usage | None:
        """The turn's usage at its end."""
        if self._style == "result" and as_object(result.get("usage")):
            return self._with_cost(_usage(result["usage"]))
        quota = as_object(as_object(as_object(result.get("_meta")).get("quota")).get("token_count"))
        if self._style == "quota" and quota:
            spent = Usage(
                input=whole(quota.get("input_tokens")) or 0, output=whole(quota.get("output_tokens")) or 0
            )
            return self._with_cost(spent)
        return None

    def _with_cost(self, usage: Usage) -> Usage:
        if not self._cost_told:
            return usage
        # A total that is less than before began anew with the agent's process.
        spent = self.cost - self._before if self.cost >= self._before else self.cost
        return replace(usage, cost_usd=round(spent, 9))


def _usage(told: Mapping[str, Any]) -> Usage:
    given, out = whole(told.get("inputTokens")) or 0, whole(told.get("outputTokens")) or 0
    read, written = whole(told.get("cachedReadTokens")) or 0, whole(told.get("cachedWriteTokens")) or 0
    thought, total = whole(told.get("thoughtTokens")) or 0, whole(told.get("totalTokens")) or 0
    # Some count what came from the cache, or thinking, within input and output, some beside them: the total tells.
    cached_apart = total in {given + out + read + written, given + out + read + written + thought}
    thought_apart = total in {given + out + thought, given + out + read + written + thought}
    return Usage(
        input=given + read + written if cached_apart else given,
        cached=read,
        output=out + thought if thought_apart else out,
        reasoning=thought,
    )
