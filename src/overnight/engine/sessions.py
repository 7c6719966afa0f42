"""What people do with sessions: make, look, change, suspend, resume, delete. Every answer is durable first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from overnight.clock import Clock
from overnight.domain.event import Draft, canonical
from overnight.domain.request import Principal
from overnight.domain.session import (
    MAX_CONFIG,
    MAX_VARIABLES,
    Session,
    SessionInput,
    SessionMessage,
    next_state,
)
from overnight.engine.folders import Folders, remove_folders
from overnight.engine.inheritance import configuration
from overnight.engine.policy import RunPolicy
from overnight.engine.repeats import check_same
from overnight.engine.session_moves import move
from overnight.errors import InvalidInput, SessionBusy, StaleVersion
from overnight.ids import RunId, SessionId, new_session_id
from overnight.ports.session_tables import SessionFilter
from overnight.ports.tables import Idempotency, RunFilter
from overnight.ports.unit_of_work import Transaction, UnitOfWork

SLICE: Final = 5_000
"""Events removed in one transaction, so that no unit takes long."""
HISTORY_BYTES: Final = 4 * 1024 * 1024
"""A page of a history holds at most about this much text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a new session is given. `config`: fields of a run, for those of its runs that leave them open."""

    name: str | None = None
    mode: str = "chat"
    variables: Mapping[str, object] | None = None
    config: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be another; None: stays. `version`: the one that the caller has seen, if he cares."""

    name: str | None = None
    variables: Mapping[str, object] | None = None
    config: Mapping[str, object] | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A page of a history, oldest first. `before`: what to ask for next; None at its beginning."""

    messages: tuple[SessionMessage, ...]
    total: int
    before: int | None


class SessionService:
    """Commands on sessions."""

    def __init__(self, *, uow: UnitOfWork, clock: Clock, policy: RunPolicy, folders: Folders) -> None:
        self._uow = uow
        self._clock = clock
        self._policy = policy
        self._folders = folders

    async def create(
        self, asked: Draw, by: Principal, *, idempotency: Idempotency | None = None
    ) -> tuple[Session, bool]:
        """A new session, and whether it is new (False: an earlier request with the same key made it).

        Raises ModeUnavailable, InvalidInput, IdempotencyKeyReused.
        """
        self._policy.modes.get(asked.mode)
        variables, config = _variables(asked.variables or {}), _config(asked.config or {})

        def unit(tx: Transaction) -> tuple[Session, bool]:
            if idempotency and (known := _made_by(tx, by, idempotency)):
                return tx.sessions.get(known, by.owner), False
            now = self._clock.wall_ms()
            session_id = new_session_id(now)
            name = asked.name or f"{asked.mode}-{session_id[-6:]}"
            made = tx.sessions.add(
                Session(
                    pk=0, id=session_id, owner=by.owner, name=name, mode=asked.mode, made_for_run=False,
                    variables=variables, config=config, created_at=now, updated_at=now,
                )
            )  # fmt: skip
            if idempotency:
                tx.keys.add(by.owner, idempotency, made.pk, made.id)
            data = {"name": name, "mode": made.mode, "by": by.name}
            tx.events.append(made.pk, [Draft(type="session.created", data=data)], now)
            return made, True

        return await self._uow.write(unit)

    async def get(self, session_id: SessionId, by: Principal) -> Session:
        """Raises NotFound."""
        return await self._uow.read(lambda tx: tx.sessions.get(session_id, by.owner))

    async def page(
        self, filter: SessionFilter, *, limit: int, after: tuple[int, int] | None
    ) -> tuple[tuple[Session, ...], tuple[int, int] | None]:
        """Newest first, and where the next page begins."""
        found = await self._uow.read(lambda tx: tx.sessions.page(filter, limit=limit + 1, after=after))
        shown = found[:limit]
        return shown, (shown[-1].created_at, shown[-1].pk) if len(found) > limit and shown else None

    async def history(
        self, session_id: SessionId, by: Principal, *, limit: int, before: int | None
    ) -> History:
        """The end of the history, or what comes before message `before` (from 1). Raises NotFound."""

        def query(tx: Transaction) -> History:
            session = tx.sessions.get(session_id, by.owner)
            total = tx.sessions.message_count(session.pk)
            end = total + 1 if before is None else min(before, total + 1)
            found = _within_bytes(tx.sessions.messages(session.pk, limit, end))
            first = end - len(found)
            return History(messages=found, total=total, before=first if found and first > 1 else None)

        return await self._uow.read(query)

    async def patch(self, session_id: SessionId, asked: Change, by: Principal) -> Session:
        """Change name, variables or configuration. Raises NotFound, StaleVersion, InvalidInput, SessionExpired."""
        changes: dict[str, object] = {}
        if asked.name is not None:
            changes["name"] = asked.name
        if asked.variables is not None:
            changes["variables"] = _variables(asked.variables)
        if asked.config is not None:
            changes["config"] = _config(asked.config)

        def unit(tx: Transaction) -> Session:
            session = tx.sessions.lock(tx.sessions.get(session_id, by.owner).pk)
            _check_version(session, asked.version)
            if session.state == "expired":
                next_state(session, "resume")  # which says what is wrong
            new = {name: value for name, value in changes.items() if getattr(session, name) != value}
            if not new:
                return session
            now = self._clock.wall_ms()
            changed = replace(session, version=session.version + 1, updated_at=now, **new)  # type: ignore[arg-type]
            tx.sessions.save(changed)
            data = {"version": changed.version, "changed": sorted(new), "by": by.name}
            tx.events.append(session.pk, [Draft(type="session.updated", data=data)], now)
            return changed

        return await self._uow.write(unit)

    async def suspend(self, session_id: SessionId, by: Principal) -> Session:
        """Put it aside until it is resumed, or a message or run comes.

        Raises NotFound, SessionBusy (a run is not final: pause or cancel that), Conflict, SessionExpired.
        """
        return await self._move(session_id, "suspend", by)

    async def resume(self, session_id: SessionId, by: Principal) -> Session:
        """Active again. Raises NotFound, SessionExpired."""
        return await self._move(session_id, "resume", by)

    async def delete(self, session_id: SessionId, by: Principal) -> tuple[RunId, ...]:
        """Remove it with its runs, events, approvals, shares and files; the runs that went along.

        Raises NotFound, SessionBusy.
        """
        session, runs = await self._uow.read(lambda tx: _removable(tx, session_id, by))
        for pk in (*runs, session.pk):
            last = await self._uow.read(lambda tx, pk=pk: tx.events.mark(pk).last)  # type: ignore[misc]
            while await self._uow.write(lambda tx, pk=pk, last=last: tx.events.trim(pk, last, SLICE)):  # type: ignore[misc]
                pass
        gone = await self._uow.write(lambda tx: tx.sessions.delete(session.pk))
        folders = [self._folders.run(run_id) for run_id in gone]
        await asyncio.to_thread(remove_folders, [*folders, *self._folders.of_session(session.id)])
        return gone

    async def _move(self, session_id: SessionId, input: SessionInput, by: Principal) -> Session:
        def unit(tx: Transaction) -> Session:
            session = tx.sessions.lock(tx.sessions.get(session_id, by.owner).pk)
            if input == "suspend":
                _check_idle(tx, session)
            return move(tx, session, input, by, self._clock.wall_ms())

        return await self._uow.write(unit)


def _check_idle(tx: Transaction, session: Session) -> None:
    live = tx.sessions.live_runs(session.pk)
    if live:
        raise SessionBusy(
            f"{session.id} has {live} live run{'s' if live > 1 else ''}", mend="pause or cancel it first"
        )


def _removable(tx: Transaction, session_id: SessionId, by: Principal) -> tuple[Session, tuple[int, ...]]:
    """The session and the keys of its runs."""
    session = tx.sessions.get(session_id, by.owner)
    _check_idle(tx, session)
    pks: list[int] = []
    after: tuple[int, int] | None = None
    while True:
        page = tx.runs.page(RunFilter(session_id=session.id), limit=200, after=after)
        pks += [run.pk for run in page.runs]
        after = page.next
        if after is None:
            return session, tuple(pks)


def _check_version(session: Session, version: int | None) -> None:
    if version is not None and version != session.version:
        raise StaleVersion(
            f"{session.id} is at version {session.version}, not {version}",
            mend="read it again and repeat the change",
            extra={"version": session.version},
        )


def _made_by(tx: Transaction, by: Principal, asked: Idempotency) -> SessionId | None:
    found = tx.keys.find(by.owner, asked.route, asked.key)
    if found is None:
        return None
    check_same(found[0], asked, session_id=found[1])
    return SessionId(found[1])


def _variables(given: Mapping[str, object]) -> dict[str, object]:
    _check_size("variables", given, MAX_VARIABLES)
    return dict(given)


def _config(given: Mapping[str, object]) -> dict[str, object]:
    _check_size("config", given, MAX_CONFIG)
    return configuration(given)


def _check_size(what: str, document: Mapping[str, object], most: int) -> None:
    size = len(canonical(dict(document)))
    if size > most:
        raise InvalidInput(
            f"{what}: {size} bytes as JSON, at most {most} are kept", mend="keep larger things in files"
        )


def _within_bytes(messages: tuple[SessionMessage, ...]) -> tuple[SessionMessage, ...]:
    """The newest of them that fit into a page; at least one."""
    kept, left = 0, HISTORY_BYTES
    for message in reversed(messages):
        left -= len(message.text)
        if left < 0 and kept:
            break
        kept += 1
    return messages[len(messages) - kept :]
