"""Figures in the Prometheus text format, without a library: names, labels, values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value. Samples of one `name` must share kind and help."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""
    """`_bucket`, `_sum` or `_count` of a histogram."""


class Histogram:
    """Counts of observations in fixed buckets."""

    def __init__(self, name: str, help: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._help = help
        self._bounds = bounds
        self._counts = [0] * len(bounds)
        self._count = 0
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._count += 1
        self._sum += value
        for index, bound in enumerate(self._bounds):
            if value <= bound:
                self._counts[index] += 1
                return

    def samples(self) -> Iterable[Sample]:
        """Buckets (cumulative), sum and count."""
        total = 0
        for bound, count in zip(self._bounds, self._counts, strict=True):
            total += count
            yield self._sample("_bucket", total, le=_number(bound))
        yield self._sample("_bucket", self._count, le="+Inf")
        yield self._sample("_sum", self._sum)
        yield self._sample("_count", self._count)

    def _sample(self, suffix: str, value: float, **labels: str) -> Sample:
        return Sample(
            name=self._name, kind="histogram", help=self._help, value=value, labels=labels, suffix=suffix
        )


def render(samples: Iterable[Sample]) -> bytes:
    """The text of all samples, grouped by name."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.name, []).append(sample)
    lines: list[str] = []
    for name, group in groups.items():
        lines += [f"# HELP {name} {group[0].help}", f"# TYPE {name} {group[0].kind}"]
        lines += [
            f"{name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}" for sample in group
        ]
    return ("\n".join(lines) + "\n").encode()


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
