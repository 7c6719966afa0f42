"""Sequence numbers of Responses events: each says how far in the log it stands, and how much live text was shown.

A number can be given back as `starting_after`, to any server, with nothing else: it is the event's seq, the place
among what that event becomes, and, while an item is shown live, its kind, how many items have begun since, and how many
of its characters were sent. So text goes on in the middle of a word. Numbers rise within a stream and stay beneath
2^53, as JavaScript counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from overnight.errors import InvalidCursor

Kind = Literal["message", "reasoning"]
_SHOWN_BITS: Final = 16
MOST_SHOWN: Final = (1 << _SHOWN_BITS) - 1
"""Characters of one item that are shown live; the rest comes when the item is complete."""
MOST_BEHIND: Final = 15
MOST_SEQ: Final = (1 << 27) - 1
"""More events than any run may have."""
ADDED: Final = 13
"""Slot of the beginning of an item that is shown live; those before it are for what recorded events become."""
PART: Final = 14
LIVE: Final = 15
_KINDS: Final[tuple[Kind | None, ...]] = (None, "message", "reasoning")
_KIND_SHIFT: Final = _SHOWN_BITS + 4
_SLOT_SHIFT: Final = _KIND_SHIFT + 2
_SEQ_SHIFT: Final = _SLOT_SHIFT + 4


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a run's stream of Responses events.

    Everything of the events before `seq` has been sent, and of event `seq` what is up to `slot`. `kind` tells that an
    item of that kind is being shown, `shown` how many of its characters, and `behind` how many items have begun since;
    in the slots of an event itself, as it was when the event came.
    """

    seq: int
    slot: int
    kind: Kind | None = None
    shown: int = 0
    behind: int = 0

    @classmethod
    def after(cls, seq: int) -> Position:
        """Behind the whole of event `seq`, with nothing shown live."""
        return cls(seq, LIVE)

    @classmethod
    def of(cls, number: int) -> Position:
        """The place that a sequence number stands for. Raises InvalidCursor for one that was never given out."""
        kind, shown = (number >> _KIND_SHIFT) & 3, number & MOST_SHOWN
        seq, behind = number >> _SEQ_SHIFT, (number >> _SHOWN_BITS) & MOST_BEHIND
        if number < 0 or seq > MOST_SEQ or kind == 3 or ((shown or behind) and not kind):
            raise InvalidCursor(f"{number} is no sequence number of this response")
        return cls(seq, (number >> _SLOT_SHIFT) & 15, _KINDS[kind], shown, behind)

    @property
    def number(self) -> int:
        """The sequence number."""
        place = self.seq << _SEQ_SHIFT | self.slot << _SLOT_SHIFT
        return place | _KINDS.index(self.kind) << _KIND_SHIFT | self.behind << _SHOWN_BITS | self.shown

    @property
    def whole(self) -> int:
        """The seq up to which recorded events have been sent entirely."""
        return self.seq if self.slot >= ADDED else max(self.seq - 1, 0)
