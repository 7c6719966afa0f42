"""Fixtures of the editor's tests: real servers, as in the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import serve

__all__ = ["serve"]
