"""Histories: what every client and every agent of a trial has seen, and a checker that judges it by the promises.

A `Recorder` writes the history down as it happens, `History.load` reads it back, `check` gives the verdict.
"""

from __future__ import annotations

from overnight.testing.history.agents import AgentLife, read_agents
from overnight.testing.history.checker import Verdict, check
from overnight.testing.history.entries import Entry
from overnight.testing.history.model import History, Violation
from overnight.testing.history.recorder import Recorder, boot, digest, read_entries
from overnight.testing.history.walk import walk

__all__ = [
    "AgentLife",
    "Entry",
    "History",
    "Recorder",
    "Verdict",
    "Violation",
    "boot",
    "check",
    "digest",
    "read_agents",
    "read_entries",
    "walk",
]
