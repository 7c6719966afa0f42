"""What carries out the turns of a session: the loop with its tools, its model, its instructions."""

from __future__ import annotations

import contextlib
import platform
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overnight.agent.acp.telling import Telling
from overnight.agent.history import History
from overnight.agent.loop.model import Asking
from overnight.agent.loop.retry import Patience
from overnight.agent.loop.turn import Turn
from overnight.agent.process import AgentSettings
from overnight.agent.prompt import Surroundings, system_prompt
from overnight.agent.tools.apply_patch import JOURNALS, recover_patches
from overnight.agent.tools.elsewhere import tools_elsewhere
from overnight.agent.tools.servers import ServersOfSession
from overnight.agent.tools.shell import OUTPUTS
from overnight.agent.tools.threads import in_thread
from overnight.agent.tools.tool import Permission, Tool, ToolContext, ToolSpec
from overnight.agent.tools.workspace import open_workspace
from overnight.client.socket.tools import ToolCalls
from overnight.errors import InvalidInput
from overnight.ports.model import InputBlock, ModelOptions, Models, ModelUsage, Thinking

_LOOKING: Final[frozenset[Permission]] = frozenset({"read"})
_EFFORTS: Final[Mapping[str, Thinking]] = {"low": "low", "medium": "medium", "high": "high"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipped:
    """The turns of one session; see `acp.agent.Turns`."""

    settings: AgentSettings
    history: History
    models: Models
    tools: Mapping[str, Tool]
    elsewhere: ToolCalls | None = None
    """Where tools of others are called; looked at anew for each turn."""
    servers: ServersOfSession | None = None
    """The session's own MCP servers."""
    jitter: Callable[[], float] = lambda: random.uniform(0.9, 1.1)  # noqa: S311 - no secret

    async def run(
        self, content: tuple[InputBlock, ...], telling: Telling, mode: str
    ) -> tuple[str, ModelUsage]:
        """One turn. Raises OvernightError."""
        root = Path(self.history.cwd)
        with contextlib.ExitStack() as stack:
            try:
                readable = (self.history.folder / OUTPUTS,)
                workspace = stack.enter_context(open_workspace(root, readable=readable))
            except OSError as error:
                raise InvalidInput(f"the workspace {root} cannot be opened: {error.strerror}") from None
            context = ToolContext(
                workspace=workspace, folder=self.history.folder, environment=self.settings.environment,
                journals=self.settings.folder / JOURNALS,
            )  # fmt: skip
            # An agent that was killed may have left a patch half way, under another history.
            await in_thread(lambda _: recover_patches(context))
            turn = Turn(
                asking=self._asking(mode), history=self.history, tools=await self._allowed(mode), context=context,
                listener=telling, asks=_asks if mode == "ask" else _never,
            )  # fmt: skip
            ended = await turn.run(content)
        return ended.reason, ended.usage

    async def close(self) -> None:
        """See `acp.agent.Turns`."""
        if self.servers is not None:
            await self.servers.close()

    def _asking(self, mode: str) -> Asking:
        settings = self.settings
        place = Surroundings(
            workspace=self.history.cwd,
            system=f"{platform.system()} on {platform.machine()}",
            commands="bash",
            sandbox=settings.sandbox,
            asks=mode == "ask",
        )
        options = ModelOptions(
            thinking=_EFFORTS.get(settings.effort or ""),
            parallel_tool_calls=True,
            conversation=self.history.id,
        )
        return Asking(
            models=self.models, name=settings.model, system=system_prompt(place, settings.instructions),
            options=options, patience=Patience(jitter=self.jitter),
        )  # fmt: skip

    async def _allowed(self, mode: str) -> Mapping[str, Tool]:
        found: dict[str, Tool] = dict(self.tools)
        if self.elsewhere is not None:
            found |= await tools_elsewhere(self.elsewhere, tuple(self.tools))
        if self.servers is not None:
            found |= await self.servers.tools(found.keys())
        if mode != "read":
            return found
        return {name: tool for name, tool in found.items() if not _asks(tool.spec)}


def _asks(spec: ToolSpec) -> bool:
    """Looking needs no leave."""
    return not spec.required_permissions <= _LOOKING


def _never(_: ToolSpec) -> bool:
    return False
