"""Ids and places of a response's items: made from the backend's own ids, none of them twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

Data = Mapping[str, Any]
MOST: Final = 256
"""Ids that are remembered, so that none comes twice: agents repeat themselves at once, if at all."""


class Names:
    """An id tells turn and attempt, because backends count their items anew in each: `msg_1_1_item_4`."""

    def __init__(self) -> None:
        self.turn = 0
        self.attempt = 0
        self.seq = 0
        self.count = 0
        """Items so far: the place of the next one."""
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._calls: OrderedDict[str, str] = OrderedDict()
        self._questions: OrderedDict[str, tuple[str, frozenset[str]]] = OrderedDict()

    def next(self) -> int:
        """The place of one more item."""
        self.count += 1
        return self.count - 1

    def wanted(self, prefix: str, item_id: object, turn: int | None = None) -> str:
        """The id that an item of this turn ought to have."""
        name = str(item_id)
        if len(name) > 64:
            name = sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
        return f"{prefix}_{self.turn if turn is None else turn}_{self.attempt}_{name}"

    def unique(self, wanted: str) -> str:
        """That id, with the seq behind it where it has been used."""
        return self.use(f"{wanted}_{self.seq}" if wanted in self._ids else wanted)

    def use(self, id: str) -> str:
        """The id is used from now on."""
        _keep(self._ids, id, None)
        return id

    def is_used(self, id: str) -> bool:
        """Whether an item with that id is complete."""
        return id in self._ids

    def call(self, prefix: str, data: Data) -> tuple[str, str, int]:
        """Id, call id and place of a call that begins."""
        id = self.unique(self.wanted(prefix, data["item_id"]))
        call_id = self.unique(self.wanted("call", data["item_id"]))
        _keep(self._calls, str(data["item_id"]), call_id)
        return id, call_id, self.next()

    def answer(self, prefix: str, data: Data) -> tuple[str, str, int]:
        """Id, call id and place of what came of a call, whether or not it was seen to begin."""
        id = self.unique(self.wanted(prefix, data["item_id"]))
        call_id = self._calls.pop(str(data["item_id"]), None)
        return id, call_id or self.unique(self.wanted("call", data["item_id"])), self.next()

    def forget_calls(self) -> None:
        """The turn is over: nothing that it began will end."""
        self._calls.clear()

    def question(self, approval_id: str, allowing: frozenset[str]) -> str:
        """The id of a question; `allowing` are the options that say yes. It may be asked anew."""
        id = self.unique(approval_id)
        _keep(self._questions, approval_id, (id, allowing))
        return id

    def decided(self, approval_id: str) -> tuple[str, frozenset[str]] | None:
        """The question that is decided, and what says yes to it; None where it was never shown."""
        return self._questions.pop(approval_id, None)


def _keep(kept: OrderedDict[str, Any], name: str, value: object) -> None:
    kept[name] = value
    if len(kept) > MOST:
        kept.popitem(last=False)
