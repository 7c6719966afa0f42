"""The engine's own tests, word for word, with their workers at the other end of the lease routes."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from tests.engine import (
    test_approvals,
    test_chat,
    test_chat_interference,
    test_control,
    test_failures,
    test_last_words,
    test_overlaps,
    test_parked,
    test_plans,
    test_runs,
)

MODULES: Final[tuple[ModuleType, ...]] = (
    test_approvals, test_chat, test_chat_interference, test_control, test_failures, test_last_words, test_overlaps,
    test_parked, test_plans, test_runs,
)  # fmt: skip

for _module in MODULES:
    for _name, _test in vars(_module).items():
        if _name.startswith("test_"):
            globals()[f"{_name}_{_module.__name__.rpartition('test_')[2]}"] = _test
