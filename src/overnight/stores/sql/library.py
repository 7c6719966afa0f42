"""Which SQLite library carries the database: a bundled one, or the interpreter's where that is safe."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final

from overnight.errors import UnsafeDatabase

SAFE_VERSION: Final = (3, 51, 3)
"""Earlier libraries can corrupt a WAL database when a commit meets a checkpoint of another connection."""


def driver() -> ModuleType:
    """The DB-API module of a safe SQLite. Raises UnsafeDatabase naming the version that is there and the mend."""
    found = None
    for name in ("pysqlite3.dbapi2", "sqlite3.dbapi2"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if module.sqlite_version_info >= SAFE_VERSION:
            return module
        found = found or module.sqlite_version
    wanted = ".".join(map(str, SAFE_VERSION))
    raise UnsafeDatabase(
        f"SQLite {found or '(none)'} can lose or corrupt data in WAL mode; {wanted} or newer is needed",
        mend="pip install --upgrade pysqlite3",
    )


def bind_as_it_is(module: ModuleType) -> None:
    """Have NULLs and bytes bound at once, as numbers and texts are.

    Of any other value the module asks first whether it wants to become something else: a microsecond each, half of
    what it takes to insert a run. Both adapters are C functions that give back what they are given. They hold for the
    whole process.
    """
    module.register_adapter(type(None), {}.get)
    module.register_adapter(bytes, bytes)
