"""Sequence numbers of one scope in one direction: 1, 2, 3 … They prove order on this connection, nothing else."""

from __future__ import annotations

from overnight.errors import DuplicateSequence, ProtocolError, SequenceGap


class Sequence:
    """The receiving side's count.

    A message whose number is refused changes nothing. One that had the right number and is refused for another reason
    does not advance the count either: its number may be used again, and since its sender may have sent more before it
    heard of that, the numbers after it are good as well.
    """

    __slots__ = ("_highest", "expected")

    def __init__(self) -> None:
        self.expected = 1
        self._highest = 0

    def check(self, number: int) -> ProtocolError | None:
        """None when this number may come now."""
        if number == self.expected or self.expected < number <= self._highest + 1:
            return None
        if number < self.expected:
            return DuplicateSequence(
                f"number {number} was used; {self.expected} is next",
                extra={"expected": self.expected, "received": number},
            )
        return SequenceGap(
            f"number {self.expected} is next, not {number}",
            extra={"expected": self.expected, "received": number},
        )

    def accept(self, number: int) -> None:
        """The message with this number, which `check` has passed, was taken."""
        self.expected = number + 1
        self._highest = max(self._highest, number)

    def refuse(self, number: int) -> None:
        """The message with this number, which `check` has passed, was refused for what is in it."""
        self._highest = max(self._highest, number)
