"""Suites that every adapter of a port passes. Import the classes into a test module that has the named fixtures."""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{name}"
        for name in (
            "approvals",
            "backend",
            "log",
            "notices",
            "queue",
            "records",
            "sessions",
            "stage",
            "tables",
            "units",
            "walk",
        )
    )
)
