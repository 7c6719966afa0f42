"""Typed client of the REST interface and of the event streams; fit to be used alone.

async with Client("http://127.0.0.1:4010", token) as client:
run = await client.submit({"goal": "…"})
async for event in client.follow(run["id"]):
...
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from overnight.client.client import Client
    from overnight.client.endpoint import Endpoint
    from overnight.client.shapes import Approval, Backend, Event, Page, Run, Turn

__all__ = ["Approval", "Backend", "Client", "Endpoint", "Event", "Page", "Run", "Turn"]
_HOMES: Final = {"Client": "client", "Endpoint": "endpoint"}


def __getattr__(name: str) -> Any:
    """Each is loaded when it is named: a worker elsewhere, which lives in this package too, uses hardly any of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'shapes')}"), name)
