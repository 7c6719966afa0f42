"""`overnight models`: which language models the server has for agents."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from overnight.cli.options import JsonFlag
from overnight.cli.output import columns, emit
from overnight.cli.tools import ServerUrl

if TYPE_CHECKING:
    from overnight.ports.model import ModelInfo


def models(
    provider: Annotated[
        str | None, typer.Argument(metavar="[PROVIDER]", help="Only the models of that provider.")
    ] = None,
    url: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """List the models that the server has for agents, the default first.

    What is not ready says what it needs: the variable of a key, never a key. Which there are is the operator's to say,
    in [models.providers] of the configuration.
    """
    import asyncio

    from overnight.cli.serving import linked
    from overnight.client.socket.streams import ModelStreams
    from overnight.ports.model import ModelFilter

    async def ask() -> tuple[ModelInfo, ...]:
        async with linked(url) as link:
            return await ModelStreams(link).models(ModelFilter(provider=provider))

    found = asyncio.run(ask())
    if as_json:
        for one in found:
            emit(dataclasses.asdict(one))
        return
    columns(("MODEL", "READY", "ALSO"), (_row(one) for one in found))


def _row(model: ModelInfo) -> tuple[str, str, str]:
    also = [*model.aliases, *(["the default"] if model.default else [])]
    return model.name, "yes" if model.ready else f"needs {model.needs}", ", ".join(also)
