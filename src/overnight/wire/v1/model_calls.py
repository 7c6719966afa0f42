"""What a run has asked of language models, as it travels."""

from __future__ import annotations

from typing import Literal

from overnight.clock import rfc3339
from overnight.ports.model import ModelUsage
from overnight.ports.model_ledger import RecordedCall
from overnight.wire.v1.schema import Cursor, Resource, Time


class ModelUsageModel(Resource):
    """`input` includes `cached` and `cache_write`, `output` includes `reasoning`. `cost_usd`: null without a price."""

    input: int
    cached: int
    cache_write: int
    output: int
    reasoning: int
    total: int
    cost_usd: float | None


class ModelCallModel(Resource):
    """One answer of a model. `reason`: why the model ended it, or the code of the error."""

    stream: str
    model: str
    ending: Literal["done", "error", "aborted", "lost"]
    reason: str
    usage: ModelUsageModel
    at: Time


class ModelCallTotal(ModelUsageModel):
    """All answers together; the cost is that of those whose price is known."""

    calls: int


class ModelCallList(Resource):
    """The answers that have ended, oldest first, and the sum of all of them."""

    items: list[ModelCallModel]
    next_cursor: Cursor
    total: ModelCallTotal


def usage_document(usage: ModelUsage) -> dict[str, object]:
    """Tokens and money."""
    return {
        "input": usage.input,
        "cached": usage.cached,
        "cache_write": usage.cache_write,
        "output": usage.output,
        "reasoning": usage.reasoning,
        "total": usage.total,
        "cost_usd": usage.cost_usd,
    }


def call_resource(found: RecordedCall) -> dict[str, object]:
    """One answer."""
    call = found.call
    return {
        "stream": call.stream,
        "model": call.model,
        "ending": call.ending,
        "reason": call.reason,
        "usage": usage_document(call.usage),
        "at": rfc3339(found.at),
    }
