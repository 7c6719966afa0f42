"""Tests that ask real providers cost money and need a network: they are collected by `make test-live` alone."""

import os

collect_ignore_glob = [] if os.environ.get("OVERNIGHT_TEST_LIVE") else ["test_*.py"]
