"""What a run would begin with, without making one: the first prompt and the resolved configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from overnight.domain.request import Principal
from overnight.domain.session import SessionMessage
from overnight.domain.spec import RunSpec
from overnight.engine import prompt
from overnight.engine.admission import Admitted
from overnight.engine.directory import Backends
from overnight.ids import SessionId
from overnight.ports.unit_of_work import Transaction, UnitOfWork
from overnight.ports.workspace import Workspaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The prompt of the first turn, and the configuration that the run would be frozen with."""

    prompt: str
    spec: RunSpec
    sandbox_effective: str


class Previewer:
    """Assembles prompts of runs that do not exist; stores and starts nothing."""

    def __init__(self, *, uow: UnitOfWork, workspaces: Workspaces, backends: Backends) -> None:
        self._uow = uow
        self._workspaces = workspaces
        self._backends = backends

    async def preview(self, admitted: Admitted, by: Principal) -> Preview:
        """The preview of an admitted run. Raises NotFound for an unknown session."""
        spec = admitted.spec
        messages, variables = await self._uow.read(lambda tx: self._context(tx, spec, by))
        workspace = Path(admitted.workspace) if admitted.workspace else None
        material = await asyncio.to_thread(prompt.gather, self._workspaces, workspace, spec)
        said = (spec.goal,) if spec.mode == "chat" else ()
        text = prompt.assemble(spec, material, messages=messages, steers=said, variables=variables)
        return Preview(prompt=text, spec=spec, sandbox_effective=admitted.sandbox_effective)

    def _context(
        self, tx: Transaction, spec: RunSpec, by: Principal
    ) -> tuple[Sequence[SessionMessage], Mapping[str, object]]:
        """What the session contributes: its messages, where the backend does not have them itself, and variables."""
        if spec.session_id is None:
            return (), {}
        session = tx.sessions.get(SessionId(spec.session_id), by.owner)
        resumes = self._backends.get(spec.backend_name).capabilities.resume
        if resumes and tx.sessions.backend_state(session.pk, spec.backend_name):
            return (), session.variables
        return tx.sessions.messages(session.pk, prompt.MESSAGES), session.variables
