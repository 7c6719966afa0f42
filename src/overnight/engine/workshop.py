"""What everything that carries out runs is given: the ports, the clocks and the operator's decisions."""

from __future__ import annotations

from dataclasses import dataclass, field

from overnight.clock import Clock
from overnight.domain.run import Run
from overnight.domain.worker import Worker
from overnight.engine.conduct import Conduct, Unjudged
from overnight.engine.directory import Backends
from overnight.engine.folders import Folders
from overnight.engine.policy import RunPolicy, Timing
from overnight.ports.meter import Meter, Unmetered
from overnight.ports.notifier import Notifier
from overnight.ports.unit_of_work import UnitOfWork
from overnight.ports.workspace import Workspaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Shared by all executors of one worker."""

    uow: UnitOfWork
    notifier: Notifier
    clock: Clock
    backends: Backends
    workspaces: Workspaces
    folders: Folders
    policy: RunPolicy
    timing: Timing
    worker: Worker
    """The registered row: its pk holds the leases."""
    meter: Meter = field(default_factory=Unmetered)
    conduct: Conduct = field(default_factory=Unjudged)

    def secrets_of(self, run: Run) -> dict[str, str]:
        """The operator's values that this run names."""
        return {name: self.policy.secrets[name] for name in run.spec.secrets if name in self.policy.secrets}
