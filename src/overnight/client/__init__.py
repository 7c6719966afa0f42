"""Typed client of the REST interface and of the event streams; fit to be used alone.

async with Client("http://127.0.0.1:4010", token) as client:
run = await client.submit({"goal": "…"})
async for event in client.follow(run["id"]):
...
"""

from overnight.client.client import Client
from overnight.client.endpoint import Endpoint
from overnight.client.shapes import Approval, Backend, Event, Page, Run, Turn

__all__ = ["Approval", "Backend", "Client", "Endpoint", "Event", "Page", "Run", "Turn"]
