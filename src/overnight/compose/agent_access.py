"""How processes of the built-in agent reach the server: by which socket and token, and whether a model would answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from overnight.backends.process.settings import AgentAccess
from overnight.config.paths import data_key, private_dir, runtime_dir
from overnight.config.settings import Settings
from overnight.domain.agent_token import Claim, agent_secret, key_of_run
from overnight.domain.backend import Problem
from overnight.engine.agent_access import agent_key
from overnight.errors import ModelNotFound
from overnight.ids import RunId
from overnight.ports.unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from overnight.client.endpoint import Endpoint
    from overnight.models.endpoint import ModelSettings

_MEND: Final = (
    "set a provider's key for the server, such as ANTHROPIC_API_KEY or OPENAI_API_KEY, "
    "or name a provider in [models.providers]"
)


def agent_socket(settings: Settings) -> Path:
    """Where a server listens for agents of this machine: alone in a folder, so that a sandbox can show just that."""
    runtime = private_dir(runtime_dir(settings.sources.environment) / data_key(settings.data_dir))
    return private_dir(runtime / "agents") / "socket"


async def agent_access(settings: Settings, uow: UnitOfWork) -> AgentAccess:
    """For a worker that knows the database."""
    key = await agent_key(uow)

    def token(run_id: str, turn: int, attempt: int) -> str:
        claim = Claim(run_id=RunId(run_id), turn=turn, attempt=attempt)
        return agent_secret(key_of_run(key, claim.run_id), claim)

    elsewhere = cast("str | None", settings.sources["worker.agent_endpoint"])
    if elsewhere is not None:  # whoever answers there has the models
        return AgentAccess(endpoint=elsewhere, token=token)
    socket = agent_socket(settings)
    return AgentAccess(
        endpoint=f"unix:{socket}",
        token=token,
        readable=(socket.parent,),
        problems=lambda: _problems(settings.models),
    )


def access_elsewhere(settings: Settings, server: Endpoint, key_of: Callable[[str], str]) -> AgentAccess:
    """For a worker of a server elsewhere, which is given a key with each run that it leases (in hex)."""

    def token(run_id: str, turn: int, attempt: int) -> str:
        claim = Claim(run_id=RunId(run_id), turn=turn, attempt=attempt)
        return agent_secret(bytes.fromhex(key_of(run_id)), claim)

    named = cast("str | None", settings.sources["worker.agent_endpoint"])
    return AgentAccess(endpoint=named or f"ws{server.url.removeprefix('http')}", token=token)


def _problems(models: ModelSettings) -> tuple[Problem, ...]:
    """Why the default model would not answer. A run may still name another one."""
    from overnight.models.catalog import Catalog  # noqa: PLC0415 - a worker without agents of ours has no use for it

    try:
        endpoint = Catalog(models).find("").endpoint
    except ModelNotFound as error:
        return (Problem(code="model_missing", message=error.detail, mend=_MEND),)
    if endpoint.needs:
        return (
            Problem(
                code="model_missing", message=f"{endpoint.name} has no key: {endpoint.needs}", mend=_MEND
            ),
        )
    return ()
