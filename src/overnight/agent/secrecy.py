"""Keeps what the process was given to itself: commands that it runs are of the same user, and could look."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def keep_to_itself(*names: str) -> None:
    """Take variables out of this process's environment, also out of what /proc shows of it, and its memory from view.

    On Linux other processes of the same user can neither read this one's memory nor attach to it afterwards; root can.
    Elsewhere only the variables go.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_void_p
        for name in names:
            at = libc.getenv(name.encode())
            if at:
                # The environment that the kernel shows is this memory, and Python never writes to it.
                ctypes.memset(at, 0, len(ctypes.string_at(at)))
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for name in names:
        os.environ.pop(name, None)
