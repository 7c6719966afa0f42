"""Backends and their preflights."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Final

from fastapi import Path
from starlette.responses import Response

from overnight.clock import rfc3339
from overnight.domain.backend import BackendCheck
from overnight.errors import NotFound
from overnight.server.context import Context, Here, listed, reply
from overnight.server.routing import API, Operation
from overnight.wire.v1 import schema

NamePath = Annotated[
    str, Path(description="Name of a configured backend", max_length=100, examples=["codex"])
]


async def list_backends(here: Here) -> Response:
    """Every configured backend with its last preflight; one that was never checked is checked now."""
    names = here.services.backends.names()
    return listed(
        [_resource(check) for check in await asyncio.gather(*(_known(here, name) for name in names))]
    )


async def get_backend(here: Here, name: NamePath) -> Response:
    """One backend with its last preflight."""
    _check_name(here, name)
    return reply(_resource(await _known(here, name)))


async def check_backend(here: Here, name: NamePath) -> Response:
    """Run the preflight now."""
    _check_name(here, name)
    return reply(_resource(await here.services.backends.check(name)))


async def _known(here: Context, name: str) -> BackendCheck:
    return here.services.backends.last(name) or await here.services.backends.check(name)


def _check_name(here: Context, name: str) -> None:
    names = here.services.backends.names()
    if name not in names:
        raise NotFound(f"no backend is named {name!r}", mend=f"use one of: {', '.join(names)}")


def _resource(check: BackendCheck) -> dict[str, object]:
    return check.to_json(rfc3339(check.checked_at))


_backend = partial(Operation, tag="backends")
OPERATIONS: Final = (
    _backend(
        method="GET", path=f"{API}/backends", endpoint=list_backends, summary="List backends", model=schema.CheckList
    ),
    _backend(
        method="GET", path=f"{API}/backends/{{name}}", endpoint=get_backend, summary="Look at a backend",
        model=schema.CheckModel,
    ),
    _backend(
        method="POST", path=f"{API}/backends/{{name}}/check", endpoint=check_backend, summary="Check a backend now",
        model=schema.CheckModel,
    ),
)  # fmt: skip
