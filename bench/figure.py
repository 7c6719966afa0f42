"""What a benchmark hands back: a figure and the limit or peer that was measured beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure. With a `limit`, the ratio to it is what survives a change of machine."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    limit_name: str = ""
    aim: str = ""

    def line(self) -> str:
        """As it is printed; one without a unit only says why there is none."""
        if not self.unit:
            return self.name
        text = f"{self.name:<54} {self.value:>12,.4g} {self.unit:<9}"
        if self.limit:
            text += f" {self.value / self.limit:>8.2f} × {self.limit_name} ({self.limit:,.4g})"
        if self.aim:
            text += f"   aim {self.aim}"
        return text
