"""Runs the scripted model server: in a thread of a test, or in the foreground of a process of its own."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import uvicorn

from overnight.models.script import Play, Script, parse_script
from overnight.testing.model_server.app import ModelApp, RecordedRequest

__all__ = ["ModelServer", "RecordedRequest"]


class ModelServer:
    """A model at `url` that plays a script. Use as a context manager; it listens on the loopback interface only.

    `keys`: the API keys that are let in; None lets everything in. `port` 0 takes a free one.
    """

    def __init__(
        self,
        script: Script | str | bytes | list[Any] | dict[str, Any],
        *,
        keys: Iterable[str] | None = None,
        port: int = 0,
    ) -> None:
        self._script = script if isinstance(script, Script) else parse_script(script)
        self._keys = None if keys is None else frozenset(keys)
        self._socket = socket.create_server(("127.0.0.1", port))
        self._app: ModelApp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-server", daemon=True)

    @property
    def url(self) -> str:
        """The base, without `/v1` and without a closing slash."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """The calls of the model so far, in order; a copy."""
        return [] if self._app is None else list(self._app.requests)

    @property
    def probes(self) -> list[str]:
        """`METHOD PATH` of everything asked that was no call of the model; a copy."""
        return [] if self._app is None else list(self._app.probes)

    @property
    def abandoned(self) -> int:
        """How many answers that hung were given up by their client."""
        return 0 if self._app is None else self._app.abandoned

    def forget(self) -> None:
        """Begin anew, as if nothing had been asked."""
        if self._app is not None:
            self._app.requests.clear()
            self._app.abandoned = 0

    def play(self, script: Script | list[Any] | dict[str, Any]) -> None:
        """Go on with another script from the next request."""
        chosen = script if isinstance(script, Script) else parse_script(script)
        if self._app is None:
            self._script = chosen
        else:
            self._app.play = Play(chosen)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut whatever hangs. Idempotent."""
        if self._loop is not None and self._app is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._app.closing.set)
            self._thread.join(10)
        self._socket.close()

    def serve_forever(self) -> None:
        """Serve in this thread until SIGINT or SIGTERM."""
        asyncio.run(self._serve(until_signalled=True))

    def _run(self) -> None:
        asyncio.run(self._serve(until_signalled=False))

    async def _serve(self, *, until_signalled: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._app = ModelApp(Play(self._script), self._keys)
        if until_signalled:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._loop.add_signal_handler(number, self._app.closing.set)
        config = uvicorn.Config(
            self._app,
            loop="asyncio",
            lifespan="off",
            ws="none",
            log_config=None,
            # Cut connections are thrown on purpose; their tracebacks would only be noise.
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # Start and stop by hand: `serve` looks only ten times a second whether it shall stop.
        await server.startup(sockets=[self._socket])
        self._ready.set()
        await self._app.closing.wait()
        server.should_exit = True
        await server.shutdown(sockets=[self._socket])
