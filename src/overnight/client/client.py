"""The client: one method a route."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

from overnight.client.calls import API, part
from overnight.client.follow import Plan
from overnight.client.sessions import SessionCalls
from overnight.client.shapes import Approval, Backend, Delta, Event, Page, Run, Turn


class Client(SessionCalls):
    """Talks to one server. Use it as an asynchronous context manager, from one event loop.

    `certificate` is the one certificate to trust (None: those that the system trusts). `locate` finds the server
    again after a failure (it may have restarted on another port, with another token).
    Every method raises the error of `overnight.errors` whose code the server named, or Unreachable.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        await self._transport.close()

    async def submit(self, spec: Mapping[str, object], *, key: str | None = None) -> Run:
        """Hand over a run; when this returns it is stored for good.

        Every submission carries an Idempotency-Key (`key`, or a fresh one), so a lost answer is asked for again and
        never makes a second run.
        """
        return cast("Run", await self._once("/runs", spec, key))

    async def preview(self, spec: Mapping[str, object]) -> dict[str, Any]:
        """The assembled prompt and the resolved configuration of a run that is not made."""
        return await self._json("POST", "/runs/preview", json=spec)

    async def runs(
        self, *, limit: int = 50, cursor: str | None = None, **filters: str | Sequence[str] | None
    ) -> Page[Run]:
        """One page, newest first. Filters: state, mode, backend, session, label, since, text."""
        query = {"limit": limit, "cursor": cursor, **filters}
        return cast("Page[Run]", await self._json("GET", "/runs", query=query))

    async def counts(self, **filters: str | Sequence[str] | None) -> dict[str, Any]:
        """How many runs there are in each state, with the filters of `runs`."""
        return await self._json("GET", "/runs/counts", query=filters)

    async def run(self, run_id: str) -> Run:
        """The snapshot of a run."""
        return cast("Run", await self._json("GET", _run(run_id)))

    async def control(self, run_id: str, action: str, **body: object) -> Run:
        """Pause, resume, cancel or steer. `body`: reason, text, when (`now`, `after_turn`), limits."""
        return cast(
            "Run", await self._json("POST", _run(run_id, "/control"), json={"action": action, **body})
        )

    async def control_many(self, action: str, **body: object) -> dict[str, Any]:
        """The same for many runs: `ids` or `filter`, and `expect_count`; a result per run."""
        return await self._json("POST", "/runs/control", json={"action": action, **body})

    async def retry(self, run_id: str) -> Run:
        """A new run like one that failed or was cancelled."""
        return cast("Run", await self._json("POST", _run(run_id, "/retry")))

    async def delete(self, run_id: str) -> None:
        """Remove a run that has ended, with everything that belongs to it."""
        await self._transport.request("DELETE", API + _run(run_id))

    async def events(self, run_id: str, **query: str | int | None) -> Page[Event]:
        """Recorded events: after, before, order (`asc`, `desc`), types (comma-separated), turn, limit (≤ 1000)."""
        return cast("Page[Event]", await self._json("GET", _run(run_id, "/events"), query=query))

    async def turns(self, run_id: str) -> list[Turn]:
        """Every attempt at every turn, oldest first."""
        return cast("Page[Turn]", await self._json("GET", _run(run_id, "/turns")))["items"]

    async def prompt(self, run_id: str, turn: int) -> str:
        """The prompt that a turn was given."""
        return (await self._transport.request("GET", f"{API}{_run(run_id)}/turns/{turn}/prompt")).text

    async def output(self, run_id: str, turn: int, **query: str | int | None) -> bytes:
        """What a turn's program printed, as it was."""
        path = f"{API}{_run(run_id)}/turns/{turn}/output"
        return (await self._transport.request("GET", path, query=query)).content

    async def diff(self, run_id: str, **query: str | int | None) -> dict[str, Any]:
        """What changed in the workspace: scope (`run`, `turn`, `uncommitted`), turn, path (then one file's patch)."""
        return await self._json("GET", _run(run_id, "/diff"), query=query)

    async def files(self, run_id: str, **query: str | int | None) -> dict[str, Any]:
        """The files that a run touched."""
        return await self._json("GET", _run(run_id, "/files"), query=query)

    async def approvals(
        self, *, limit: int = 50, cursor: str | None = None, **filters: str | Sequence[str] | None
    ) -> Page[Approval]:
        """One page, newest first. Filters: state, run_id, session_id."""
        query = {"limit": limit, "cursor": cursor, **filters}
        return cast("Page[Approval]", await self._json("GET", "/approvals", query=query))

    async def approval(self, approval_id: str) -> Approval:
        """What is asked, with the digest that a decision needs."""
        return cast("Approval", await self._json("GET", f"/approvals/{part(approval_id)}"))

    async def resolve(self, approval_id: str, option: str, digest: str, **body: object) -> Approval:
        """Decide. `body`: feedback, changes. Safe to send again.

        Raises AlreadyDecided, ApprovalOver, and ActionChanged when `digest` is not that of what would happen now.
        """
        path = f"/approvals/{part(approval_id)}/resolve"
        document = {"option": option, "digest": digest, **body}
        return cast("Approval", await self._json("POST", path, json=document))

    async def backends(self) -> list[Backend]:
        """Every backend with its last preflight."""
        return cast("Page[Backend]", await self._json("GET", "/backends"))["items"]

    async def check(self, name: str) -> Backend:
        """Run a backend's preflight now."""
        return cast("Backend", await self._json("POST", f"/backends/{part(name)}/check"))

    async def workers(self) -> list[dict[str, Any]]:
        """Who is attached."""
        return cast("list[dict[str, Any]]", (await self._json("GET", "/workers"))["items"])

    async def ask_worker(self, worker_id: str, action: str, *, reason: str | None = None) -> dict[str, Any]:
        """`drain`, `resume` or `release` a worker; as it is then. Raises Conflict where its state does not allow it."""
        path = f"/workers/{part(worker_id)}/{part(action)}"
        return await self._json("POST", path, json={"reason": reason})

    async def connections(self, session_id: str | None = None) -> list[dict[str, Any]]:
        """Streams and sockets that are open, or those that follow one session."""
        found = await self._json("GET", "/connections", query={"session_id": session_id})
        return cast("list[dict[str, Any]]", found["items"])

    async def stats(self) -> dict[str, Any]:
        """Queue depth, saturation, and what nobody offers."""
        return await self._json("GET", "/stats")

    async def doctor(self) -> dict[str, Any]:
        """What the server found when it looked at itself."""
        return await self._json("GET", "/doctor")

    async def config(self) -> list[dict[str, Any]]:
        """The server's settings and where each came from."""
        return cast("list[dict[str, Any]]", (await self._json("GET", "/config"))["items"])

    async def tokens(self) -> list[dict[str, Any]]:
        """Access tokens, without their secrets."""
        return cast("list[dict[str, Any]]", (await self._json("GET", "/tokens"))["items"])

    async def new_token(self, name: str, **body: object) -> dict[str, Any]:
        """Make an access token (`kind`: user, worker, agent); its secret is in this answer and nowhere else."""
        return await self._json("POST", "/tokens", json={"name": name, **body})

    async def revoke_token(self, name: str) -> None:
        """Make a token useless, by name or id. Idempotent."""
        await self._transport.request("DELETE", f"{API}/tokens/{part(name)}")

    async def handover(self) -> None:
        """The server exits at once and leaves its agents to the next one."""
        await self._transport.request("POST", f"{API}/admin/handover")

    async def ready(self) -> bool:
        """Whether the server takes work. Raises Unreachable."""
        return (await self._transport.request("GET", "/readyz")).status_code == 200

    async def follow(
        self,
        run_id: str,
        after: int = 0,
        *,
        deltas: bool = False,
        patience_s: float | None = None,
        lost: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[Event | Delta]:
        """Every event after `after`, each once and in order, until the run has ended; reconnects by itself.

        With `deltas` also fragments for live display, which have no seq. `lost` hears of each cut. Raises NotFound,
        StreamTrimmed, and Unreachable after `patience_s` without a connection (None: never).
        """
        path = f"{API}{_run(run_id)}/stream"
        plan = Plan(path=path, after=after, deltas=deltas, patience_s=patience_s, lost=lost)
        async with aclosing(self._followed(plan)) as items:
            async for item in items:
                yield item

    async def changes(
        self, after: int = 0, *, patience_s: float | None = None
    ) -> AsyncGenerator[dict[str, Any]]:
        """A summary for every change of any run that the token may see; never ends by itself."""
        plan = Plan(path=f"{API}/stream", after=after, gapless=False, patience_s=patience_s)
        async with aclosing(self._followed(plan)) as items:
            async for item in items:
                yield cast("dict[str, Any]", item)


def _run(run_id: str, rest: str = "") -> str:
    return f"/runs/{part(run_id)}{rest}"
