"""Placement: where a run may be carried out, and what it asks of a worker. Pure text, no disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from overnight.domain.spec import NEEDS, RunSpec
from overnight.ids import HostId

ANYWHERE: Final = "any"
"""Nothing of the run lies on a host yet, or nothing that could not be fetched anew."""
_HOST: Final = "host:"
_ROOT: Final = "root:"


def at_host(host_id: str) -> str:
    """The place of what lies on one host alone."""
    return _HOST + host_id


def at_root(root: str) -> str:
    """The place of what lies beneath a directory that several hosts share under the same path."""
    return _ROOT + root


def host_of(place: str) -> HostId | None:
    """The one host that a place means."""
    return HostId(place.removeprefix(_HOST)) if place.startswith(_HOST) else None


def root_of(place: str) -> str | None:
    """The shared directory that a place means."""
    return place.removeprefix(_ROOT) if place.startswith(_ROOT) else None


def first_place(
    spec: RunSpec, workspace: str | None, host_id: HostId, shared_roots: Sequence[str] = ()
) -> str:
    """Where a new run may begin. `workspace` is the directory's real path, where the run has one."""
    if workspace is None or not isinstance(spec.workspace, str):
        return ANYWHERE
    around = [root for root in shared_roots if beneath(root, workspace)]
    return at_root(max(around, key=len)) if around else at_host(host_id)


def place_once_begun(spec: RunSpec, place: str, host_id: HostId) -> str:
    """Where a run may go on: what it makes in a scratch folder stays on the host that it began on."""
    return at_host(host_id) if place == ANYWHERE and spec.workspace is None else place


def beneath(root: str, path: str) -> bool:
    """Whether `path` is `root` or lies in it; both absolute, without links and `..`."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def shared_chain(root: str, path: str) -> tuple[str, ...]:
    """A directory beneath a shared root and all that it lies in up to that root, by names that every host knows."""
    found = [path]
    while found[-1] != root:
        found.append(found[-1].rpartition("/")[0] or "/")
    return tuple(found)


def need_of(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that a worker must bear for a run with `labels`."""
    return {
        name.removeprefix(NEEDS): value
        for name, value in labels.items()
        if name.startswith(NEEDS) and name != NEEDS
    }


def satisfied(need: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a worker with `labels` bears all that is needed."""
    return all(labels.get(name) == value for name, value in need.items())
