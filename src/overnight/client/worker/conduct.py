"""How a worker elsewhere fares: it says so with its next offer, and the server judges it."""

from __future__ import annotations

from collections import deque
from typing import Final

from overnight.ports.remote import Report

MOST: Final = 20
"""Faults that are told at once. No more of them are ever needed."""
LONGEST: Final = 200


class Reported:
    """See `engine.conduct.Conduct`. Nothing here waits for the server: a run is not let go because it is away."""

    def __init__(self) -> None:
        self._faults: deque[str] = deque(maxlen=MOST)
        self._well = False
        self._clean = False
        """Whether the server counts nothing against this host, as far as is known here."""

    async def stumbled(self, why: str) -> None:
        """See `Conduct`."""
        self._clean = False
        self._faults.append(why[:LONGEST])

    async def went_well(self) -> None:
        """See `Conduct`."""
        if not self._clean:
            self._faults.clear()
            self._well = self._clean = True

    def take(self) -> Report:
        """What is to be told. It is told once: whoever takes it must see to it that it arrives."""
        report = Report(well=self._well, faults=tuple(self._faults))
        self._faults.clear()
        self._well = False
        return report
