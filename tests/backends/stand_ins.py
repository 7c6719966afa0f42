"""Settings of programs, and small stand-ins for the real ones."""

from __future__ import annotations

import os

from overnight.backends.process.settings import ProgramSettings

HOST = {
    "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "LD_PRELOAD": "evil.so", "AWS_SECRET_ACCESS_KEY": "s",
    "OVERNIGHT_TOKEN": "t", "https_proxy": "http://proxy:1",
}  # fmt: skip
NOBODY = HOST | {"PATH": "/nowhere"}


def settings(name: str, **changes: object) -> ProgramSettings:
    fields: dict[str, object] = {"name": name, "host": HOST}
    return ProgramSettings(**(fields | changes))  # type: ignore[arg-type]
