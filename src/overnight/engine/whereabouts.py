"""Where a new run may be carried out, as far as the server that takes it can know."""

from __future__ import annotations

import os.path
from collections.abc import Sequence

from overnight.domain.placement import beneath, first_place, host_of
from overnight.domain.spec import RunSpec
from overnight.errors import WorkspaceRefused
from overnight.ids import HostId
from overnight.ports.unit_of_work import UnitOfWork


class Whereabouts:
    """Of one server. `working`: it carries out runs itself. `shared_roots` are directories that all hosts see alike."""

    def __init__(
        self, *, uow: UnitOfWork, host_id: HostId, shared_roots: Sequence[str] = (), working: bool = True
    ) -> None:
        self._uow = uow
        self._host_id = host_id
        self._shared_roots = tuple(shared_roots)
        self._working = working

    def leaves_to_worker(self, path: str) -> bool:
        """Whether only a worker can look at that directory: it is shared, but not with this machine. Blocks.

        Raises WorkspaceRefused for one that is neither here nor shared.
        """
        if self._working or "\0" in path or not path.startswith("/") or os.path.lexists(path):
            return False
        if os.path.normpath(path) == path and any(beneath(root, path) for root in self._shared_roots):
            return True
        roots = ", ".join(self._shared_roots) or "none"
        raise WorkspaceRefused(
            f"{path[:200]} is not on this server's machine, and beneath no directory that all hosts share",
            mend=f"use one beneath a shared root ({roots}), or git; or ask a server on the machine where it is",
        )

    def place(self, spec: RunSpec, workspace: str | None) -> str:
        """See `domain.placement`."""
        return first_place(spec, workspace, self._host_id, self._shared_roots)

    async def check(self, place: str) -> None:
        """Raise WorkspaceRefused for a directory of this machine when nobody carries out runs for this host."""
        if self._working or host_of(place) != self._host_id:
            return
        workers = await self._uow.read(lambda tx: tx.workers.all())
        if any(other.host_id == self._host_id and other.slots and other.state != "gone" for other in workers):
            return
        raise WorkspaceRefused(
            "the directory is on this server's machine alone, where no worker runs",
            mend="declare a root above it as shared (worker.shared_roots), use git, or start a worker with the data "
            "directory of this server",
        )
