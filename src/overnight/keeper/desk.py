"""The keeper's counter: who may speak, what they may ask for, and what they are told unasked."""

from __future__ import annotations

import base64
import os
import select
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from overnight.keeper.connection import Connection, Refused, is_own_user
from overnight.keeper.kernel import boot_now
from overnight.keeper.loop import Loop
from overnight.keeper.turn import Turn
from overnight.keeper_protocol import VERSIONS, Identity, agree, decode, interrupt_from, to_json

MAX_CONNECTIONS = 32
ANNOUNCE_EVERY_S = 0.002
"""Floor between two `grew`: an agent that writes line by line must not pay for each with a wake-up of the server."""


class Desk:
    """Serves the clients of one turn. Only the highest token that ever said hello may give orders."""

    def __init__(
        self, loop: Loop, listener: socket.socket, turn: Turn, identity: Identity, secret: str
    ) -> None:
        self.token = 0
        self.released = False
        """The end has been acknowledged: nobody needs this keeper any more."""
        self._loop = loop
        self._listener = listener
        self._turn = turn
        self.identity = identity
        """Who this keeper is, as it was when the agent had been started."""
        self._secret = secret.encode()
        self._connections: list[Connection] = []
        self._announce_due = 0.0
        self._survivors_told = 0
        loop.watch(listener.fileno(), select.POLLIN, self._accept)

    def welcome(self, connection: Connection, token: int, id: object = 0) -> None:
        """Take in a client that has proved itself; it is told everything that it missed."""
        if token > self.token:
            self._supersede(token)
        connection.token = token
        if connection not in self._connections:
            self._connections.append(connection)
        state = self._turn.state(self.token)
        connection.announced = (state.stdout_bytes, state.stderr_bytes, state.stalled)
        connection.send(
            {
                "type": "welcome",
                "id": id,
                "version": VERSIONS[-1],
                "identity": to_json(self.identity),
                "state": to_json(state),
            }
        )

    def serve(self, now: float) -> None:
        """Tell what has changed, write what waits, watch for the rest. To be called in every round."""
        self._announce(now)
        for connection in list(self._connections):
            if connection.closed:
                self._loop.forget(connection.handle)
                self._connections.remove(connection)
        for connection in self._connections:
            events = select.POLLIN | (select.POLLOUT if connection.wants_write else 0)
            self._loop.watch(connection.handle, events, partial(self._heard, connection))

    @property
    def attended(self) -> bool:
        """Whether the present holder is connected."""
        return any(known.token == self.token and not known.closed for known in self._connections)

    def dues(self) -> Iterator[float | None]:
        """When `serve` has something to tell."""
        if any(self._has_news(connection) for connection in self._connections):
            yield self._announce_due

    def tell_end(self) -> None:
        """Push the record to everyone."""
        if self._turn.record is not None:
            self._push({"type": "exited", "record": to_json(self._turn.record)})

    def close(self, timeout_s: float) -> None:
        """Let all clients go, once they have taken what was sent to them or the time is over."""
        for connection in self._connections:
            connection.finish(timeout_s)
        self._listener.close()

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self._listener.accept()
        except OSError:
            return
        if len(self._connections) >= MAX_CONNECTIONS or not is_own_user(sock):
            sock.close()
            return
        self._connections.append(Connection(sock))

    def _heard(self, connection: Connection, _: int) -> None:
        connection.flush()
        lines = [] if connection.closed else connection.receive()
        while connection.handles:
            os.close(connection.handles.pop())
        for line in lines:
            self._answer(connection, line)

    def _answer(self, connection: Connection, line: bytes) -> None:
        id: object = None
        try:
            message = decode(line)
            id = message.get("id")
            if message["type"] == "hello":
                self._hello(connection, message)
                return
            self._check(connection, message)
            self._carry_out(message)
        except Refused as refused:
            connection.send(refused.message(id))
            if refused.code in ("bad_secret", "no_common_version"):
                connection.close()
        except (ValueError, KeyError, TypeError) as error:
            connection.send(Refused("bad_message", repr(error)).message(id))
        else:
            connection.send({"type": "ok", "id": id, "stdin_last": self._turn.feed.last})

    def _hello(self, connection: Connection, message: dict[str, Any]) -> None:
        if not _same(str(message["secret"]).encode(), self._secret):
            raise Refused("bad_secret", "that is not this turn's secret")
        if agree(message["versions"]) is None:
            raise Refused("no_common_version", f"this keeper speaks {VERSIONS}", versions=list(VERSIONS))
        token = int(message["token"])
        if token < self.token:
            raise self._stale(token)
        self.welcome(connection, token, message.get("id"))

    def _check(self, connection: Connection, message: dict[str, Any]) -> None:
        if connection.token is None:
            raise Refused("bad_secret", "say hello first")
        token = int(message["token"])
        if token != self.token or connection.token != self.token:
            raise self._stale(token)

    def _stale(self, token: int) -> Refused:
        return Refused(
            "stale_token", f"token {token} is stale, the turn is at {self.token}", token=self.token
        )

    def _carry_out(self, message: dict[str, Any]) -> None:
        turn = self._turn
        match message["type"]:
            case "renew":
                changes = {name: message[name] for name in ("orphan_deadline", "deadline") if name in message}
                turn.limits = turn.limits._replace(**changes)
            case "stdin":
                turn.feed.take(int(message["n"]), base64.b64decode(message["data"], validate=True))
            case "close_stdin":
                turn.feed.close()
            case "ladder":
                self._begin_ladder(message)
            case "release":
                if turn.record is None:
                    raise Refused("still_running", "the turn has not ended")
                self.released = True
            case other:
                raise Refused("bad_message", f"no such request: {other}")

    def _begin_ladder(self, message: dict[str, Any]) -> None:
        grace_s = float(message.get("grace_s", self._turn.limits.grace_s))
        reason: Literal["stopped", "deadline", "fenced"] = message["reason"]
        if reason not in ("stopped", "deadline", "fenced"):
            raise Refused("bad_message", f"a client has no ladder for {reason!r}")
        now = boot_now()
        asked = message.get("interrupt")
        interrupt = self._turn.spec.interrupt if asked is True else interrupt_from(asked or None)
        self._turn.ladder.begin(reason, interrupt, grace_s, now)
        self._turn.stop_waiting(now, grace_s)

    def _supersede(self, token: int) -> None:
        for connection in self._connections:
            if connection.token is not None:
                connection.send({"type": "superseded", "token": token})
        self.token = token

    def _has_news(self, connection: Connection) -> bool:
        """A client whose socket is full is told later, once for everything that has grown meanwhile."""
        news = (*self._turn.pump.sizes, self._turn.pump.stalled)
        current = connection.token is not None and connection.token == self.token
        return (
            current and not connection.closed and not connection.wants_write and connection.announced != news
        )

    def _announce(self, now: float) -> None:
        out, err = self._turn.pump.sizes
        ended = self._turn.record is not None
        if now >= self._announce_due or ended:
            for connection in filter(self._has_news, self._connections):
                connection.announced = (out, err, self._turn.pump.stalled)
                connection.send(
                    {"type": "grew", "stdout": out, "stderr": err, "stalled": self._turn.pump.stalled}
                )
                self._announce_due = now + ANNOUNCE_EVERY_S
        if self._turn.ladder.survivors != self._survivors_told:
            self._survivors_told = self._turn.ladder.survivors
            self._turn.note_survivors()
            self._push({"type": "surviving", "count": self._survivors_told})

    def _push(self, message: dict[str, object]) -> None:
        for connection in self._connections:
            if connection.token is not None and connection.token == self.token:
                connection.send(message)


def _same(given: bytes, expected: bytes) -> bool:
    """Compare in constant time (`hmac` would bring OpenSSL into every keeper)."""
    difference = len(given) ^ len(expected)
    for one, other in zip(given, expected, strict=False):
        difference |= one ^ other
    return difference == 0
