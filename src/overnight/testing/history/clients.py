"""Clients whose every question and answer goes into the history."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal

import httpx2
import orjson

from overnight.client.connecting import connecting
from overnight.client.problems import error_of
from overnight.testing.history.entries import (
    Controlled,
    Decided,
    Listed,
    Logged,
    Outcome,
    Probe,
    Snapshot,
    Submitted,
)
from overnight.testing.history.recorder import Recorder, boot

API = "/api/v1"
KEY_LABEL = "history/key"
"""Every submitted run carries its Idempotency-Key under this label, so that a listing tells which run came of it."""
UNSURE = frozenset({"outcome_unknown", "internal"})
"""Codes with which a server says that it does not know, or says nothing."""

OVER = frozenset({"invalid_transition"})
"""Codes of a cancel that comes when there is nothing to cancel any more."""


class Answer:
    """What became of one request: an outcome, and what was said."""

    def __init__(self, response: httpx2.Response | None, error: httpx2.TransportError | None = None) -> None:
        self.status = response.status_code if response is not None else 0
        self.body: Any = _json(response)
        if response is None:
            # Without a connection nothing was sent; anything later may have arrived.
            never_sent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            self.outcome: Outcome = "refused" if never_sent else "unknown"
            self.code: str | None = "unreachable" if never_sent else "answer_lost"
        elif response.is_success:
            self.outcome, self.code = "accepted", None
        else:
            self.code = error_of(response.status_code, response.content).code
            unsure = self.code in UNSURE or (response.status_code >= 500 and not self._is_problem())
            self.outcome = "unknown" if unsure else "refused"

    def _is_problem(self) -> bool:
        return isinstance(self.body, dict) and "code" in self.body


def _json(response: httpx2.Response | None) -> Any:
    try:
        return orjson.loads(response.content) if response is not None else None
    except orjson.JSONDecodeError:
        return None


class RecordedClient:
    """Asks one server after the other, in turn, and records what was learned. Use it from one event loop."""

    def __init__(self, recorder: Recorder, urls: Sequence[str], token: str, *, timeout_s: float = 10) -> None:
        self._recorder = recorder
        self._turn = itertools.cycle(urls)
        self.urls = tuple(urls)
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx2.Timeout(timeout_s, connect=2),
            trust_env=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=40),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def next_url(self) -> str:
        """The server whose turn it is."""
        return next(self._turn)

    async def submit(
        self, spec: Mapping[str, object], key: str, url: str | None = None, turns: int | None = None
    ) -> Answer:
        """One submission under that key; nothing is tried again by itself. `turns`: see `Submitted`."""
        url = url or self.next_url()
        labels = {**_labels(spec), KEY_LABEL: key}
        answer = await self.ask(
            "POST", url, "/runs", json={**spec, "labels": labels}, headers={"Idempotency-Key": key}
        )
        run_id = str(answer.body["id"]) if answer.outcome == "accepted" else None
        self._recorder.add(
            Submitted(
                at=boot(), key=key, outcome=answer.outcome, run_id=run_id, code=answer.code, server=url,
                turns=turns, place=place_of(spec),
            )
        )  # fmt: skip
        return answer

    async def control(self, run_id: str, action: str, url: str | None = None, **body: object) -> Answer:
        """One pause, resume, cancel or steer."""
        url = url or self.next_url()
        answer = await self.ask("POST", url, f"/runs/{run_id}/control", json={"action": action, **body})
        self._recorder.add(
            Controlled(
                at=boot(), run_id=run_id, action=action, outcome=answer.outcome, code=answer.code, server=url
            )
        )
        return answer

    async def decide(self, run_id: str, approval_id: str, option: str, **body: object) -> Answer:
        """One decision, with the digest that the approval shows now."""
        url = self.next_url()
        shown = await self.ask("GET", url, f"/approvals/{approval_id}")
        if shown.outcome != "accepted":
            return shown
        document, sent = {"option": option, "digest": shown.body["digest"], **body}, boot()
        answer = await self.ask("POST", url, f"/approvals/{approval_id}/resolve", json=document)
        self._recorder.add(
            Decided(
                at=boot(), sent=sent, run_id=run_id, approval_id=approval_id, option=option,
                outcome=answer.outcome, counts=_option_that_counts(answer.body), code=answer.code, server=url,
            )
        )  # fmt: skip
        return answer

    async def snapshot(self, run_id: str, url: str | None = None) -> Answer:
        """The run as it is now."""
        url = url or self.next_url()
        answer = await self.ask("GET", url, f"/runs/{run_id}")
        if answer.outcome == "accepted":
            run = answer.body
            waits = run["waiting_for"] or {}
            self._recorder.add(
                Snapshot(
                    at=boot(), run_id=run_id, state=run["state"], last_seq=run["last_seq"],
                    waits_for=waits.get("approval_id") or waits.get("kind"), server=url,
                )
            )  # fmt: skip
        elif answer.code == "not_found":
            missing = Snapshot(at=boot(), run_id=run_id, state="missing", last_seq=0, server=url)
            self._recorder.add(missing)
        return answer

    async def log(self, run_id: str, url: str) -> bool:
        """The whole log from one server; whether it could be read."""
        bodies: list[str] = []
        while True:
            query = f"?after={len(bodies)}&limit=1000"
            answer = await self.ask("GET", url, f"/runs/{run_id}/events{query}")
            if answer.outcome != "accepted":
                return False
            # The server sends the stored bytes; canonical JSON comes back from orjson as it was.
            bodies += [orjson.dumps(event).decode() for event in answer.body["items"]]
            if len(answer.body["items"]) < 1000:
                self._recorder.add(Logged(at=boot(), server=url, run_id=run_id, bodies=tuple(bodies)))
                return True

    async def list_all(self, url: str) -> bool:
        """Every run that a server knows, with the key that it was submitted under; whether it could be read."""
        found: dict[str, str] = {}
        listed: Counter[str] = Counter()
        async for page in self._pages(url):
            if page is None:
                return False
            found |= {run["id"]: run["labels"].get(KEY_LABEL, "") for run in page}
            listed.update(run["id"] for run in page)
        twice = tuple(run_id for run_id, times in listed.items() if times > 1)
        self._recorder.add(Listed(at=boot(), server=url, runs=found, twice=twice))
        return True

    async def holds(self) -> dict[str, str]:
        """The host that carries out each running run, by the run's id; empty when nobody could say."""
        answer = await self.ask("GET", self.next_url(), "/runs?limit=200&state=running")
        items = answer.body["items"] if answer.outcome == "accepted" else []
        return {run["id"]: run["host_id"] for run in items}

    async def probe(
        self,
        during: str,
        url: str,
        run_id: str,
        spec: Mapping[str, object],
        key: str,
        *,
        cancel: str | None = None,
    ) -> Answer:
        """Try a submission, a read and, of the run `cancel`, a cancel, to see what a fault does to them.

        The submission's answer comes back.
        """
        written = await self.submit(spec, key, url)
        tries: list[tuple[Literal["write", "read", "cancel"], Answer]] = [("write", written)]
        tries.append(("read", await self.ask("GET", url, f"/runs/{run_id}/events?limit=5")))
        if cancel is not None:
            cancelled = await self.control(cancel, "cancel", url)
            if cancelled.code not in OVER:
                tries.append(("cancel", cancelled))
        for tried, answer in tries:
            self._recorder.add(
                Probe(
                    at=boot(), during=during, tried=tried, outcome=answer.outcome, status=answer.status,
                    code=answer.code,
                )
            )  # fmt: skip
        return written

    async def _pages(self, url: str) -> AsyncIterator[list[dict[str, Any]] | None]:
        cursor: str | None = None
        while True:
            query = f"?limit=200&cursor={cursor}" if cursor else "?limit=200"
            answer = await self.ask("GET", url, f"/runs{query}")
            if answer.outcome != "accepted":
                yield None
                return
            yield answer.body["items"]
            cursor = answer.body["next_cursor"]
            if cursor is None:
                return

    async def ask(self, method: str, url: str, path: str, **more: Any) -> Answer:
        """One request to one server; nothing of it is recorded."""
        try:
            with connecting():
                return Answer(await self._http.request(method, url + API + path, **more))
        except httpx2.TransportError as error:
            return Answer(None, error)


def _labels(spec: Mapping[str, object]) -> dict[str, object]:
    found = spec.get("labels", {})
    return dict(found) if isinstance(found, Mapping) else {}


def place_of(spec: Mapping[str, object]) -> str:
    """What kind of workspace a run asks for."""
    match spec.get("workspace"):
        case None:
            return "scratch"
        case str():
            return "shared root"
        case _:
            return "git workspace"


def _option_that_counts(body: Any) -> str | None:
    """The decision that an answer names: of the approval itself, or of the refusal that came too late."""
    decision = body.get("decision") if isinstance(body, dict) else None
    return str(decision["option"]) if isinstance(decision, dict) and "option" in decision else None
