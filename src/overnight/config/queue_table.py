"""The settings of workers and of the queue."""

from __future__ import annotations

from typing import Final

from overnight.config.setting import Setting

QUEUE: Final[tuple[Setting, ...]] = (
    Setting(
        key="worker.labels",
        variable="OVERNIGHT_WORKER_LABELS",
        kind="names",
        default="",
        description="What is special about this worker, as name=value: a run that is labelled worker/gpu=a100 goes "
        "only to workers with gpu=a100.",
    ),
    Setting(
        key="worker.backends",
        variable="OVERNIGHT_WORKER_BACKENDS",
        kind="names",
        default="",
        description="The backends for which this worker takes runs; without a value all that it knows.",
    ),
    Setting(
        key="worker.shared_roots",
        variable="OVERNIGHT_WORKER_SHARED_ROOTS",
        kind="paths",
        default=None,
        description="Directories that several hosts share under the same path: runs beneath them may go to any worker "
        "that names them too.",
    ),
    Setting(
        key="queue.backend_limits",
        kind="table",
        default=None,
        description="How many runs of a backend may be held at once by all workers together, such as codex = 4.",
    ),
    Setting(
        key="queue.label_limits",
        kind="table",
        default=None,
        description='The same for the runs with a label, such as "team=a" = 2.',
    ),
    Setting(
        key="queue.rates",
        kind="table",
        default=None,
        description='How many runs of a backend may be started in a time, such as codex = "30/hour": so many at once, '
        "then evenly. A run that comes back from a pause or a back-off counts again.",
    ),
    Setting(
        key="queue.quarantine_after",
        variable="OVERNIGHT_QUARANTINE_AFTER",
        kind="count",
        default="3",
        least=0,
        most=1000,
        description="A worker on which so many turns in a row could not even begin within ten minutes, or that lost "
        "its leases so often, gets no more runs until it is released; 0: never.",
    ),
)
