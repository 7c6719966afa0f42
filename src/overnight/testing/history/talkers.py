"""People who talk in sessions: messages are posted, and taken back, and every answer goes into the history."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from overnight.testing.history.clients import Answer, RecordedClient
from overnight.testing.history.entries import Conversation, Posted, TakenBack
from overnight.testing.history.recorder import Recorder, boot


class Talker:
    """Talks by a recorded client, to one server after the other. Nothing is tried again by itself."""

    def __init__(self, recorder: Recorder, client: RecordedClient) -> None:
        self._recorder = recorder
        self._client = client

    async def open(self, config: Mapping[str, object], key: str) -> Answer:
        """A new session, whose runs take what they need from `config`."""
        document = {"mode": "chat", "config": dict(config)}
        url, headers = self._client.next_url(), {"Idempotency-Key": key}
        return await self._client.ask("POST", url, "/sessions", json=document, headers=headers)

    async def post(self, session_id: str, text: str, key: str) -> Answer:
        """One message, for a turn of its own."""
        url, headers = self._client.next_url(), {"Idempotency-Key": key}
        answer = await self._client.ask(
            "POST", url, f"/sessions/{session_id}/messages", json={"text": text}, headers=headers
        )
        body = answer.body if answer.outcome == "accepted" else {}
        run = body.get("run")
        self._recorder.add(
            Posted(
                at=boot(), session_id=session_id, key=key, outcome=answer.outcome, code=answer.code, server=url,
                message_id=body["message"]["id"] if body else None, run_id=run["id"] if run else None,
            )
        )  # fmt: skip
        return answer

    async def take_back(self, session_id: str, message_id: str, key: str) -> Answer:
        """Want the message back that was posted under that key."""
        url = self._client.next_url()
        answer = await self._client.ask("DELETE", url, f"/sessions/{session_id}/messages/{message_id}")
        self._recorder.add(
            TakenBack(
                at=boot(),
                session_id=session_id,
                key=key,
                outcome=answer.outcome,
                code=answer.code,
                server=url,
            )
        )
        return answer

    async def runs(self, session_id: str) -> Answer:
        """The runs of a session, newest first."""
        return await self._client.ask(
            "GET", self._client.next_url(), f"/sessions/{session_id}/runs?limit=200"
        )

    async def history(self, session_id: str, url: str) -> bool:
        """What was said, as one server has it, goes into the history; whether it could be read."""
        answer = await self._client.ask("GET", url, f"/sessions/{session_id}/history?limit=1000")
        if answer.outcome != "accepted":
            return False
        bodies = tuple(orjson.dumps(message).decode() for message in answer.body["items"])
        self._recorder.add(Conversation(at=boot(), server=url, session_id=session_id, bodies=bodies))
        return True
