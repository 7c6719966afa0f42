"""The engine's own tests, word for word, with their workers at the other end of the lease routes."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Final

from tests.engine import (
    test_approvals,
    test_chat,
    test_chat_interference,
    test_control,
    test_failures,
    test_histories,
    test_holds,
    test_last_words,
    test_overlaps,
    test_parked,
    test_plans,
    test_runs,
)

MODULES: Final[tuple[ModuleType, ...]] = (
    test_approvals, test_chat, test_chat_interference, test_control, test_failures, test_histories, test_holds,
    test_last_words, test_overlaps, test_parked, test_plans, test_runs,
)  # fmt: skip
"""Not among them: what a server does by itself (admission, service, sessions, maintenance, hosts, explainer), what is
pure (next_step), and what draws its steps at random (`test_chances_elsewhere.py` takes a few of these).
"""
NOT_ELSEWHERE: Final[Mapping[str, str]] = {
    "test_the_rescuer_takes_up_what_nobody_renews": "rescuers belong to servers: a worker elsewhere sees no leases",
}

for _module in MODULES:
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and _name not in NOT_ELSEWHERE:
            globals()[f"{_name}_{_module.__name__.rpartition('test_')[2]}"] = _test
