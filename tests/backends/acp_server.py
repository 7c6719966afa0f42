"""A server that carries out one ACP turn and kills itself: `python -m tests.backends.acp_server FOLDER AFTER MOMENT`.

What must be durable stands in FOLDER: the messages, and the position with the events before it. It is killed at its
AFTER-th message, `before` or `behind` its row is stored, or `recorded`: behind the next batch. 0 lets it live.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from tests.backends.acp_stage import ALLOW, Stage
from tests.keeper.harness import Place

from overnight.domain.run import Position
from overnight.domain.update import Asked, Delta
from overnight.testing.bare_turn import turn_start


class Server:
    """One life."""

    def __init__(self, folder: Path, after: int, moment: str) -> None:
        self.folder = folder
        self.left = after
        self.moment = moment
        self.doomed = False

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def store(self, number: int, data: bytes) -> None:
        self.left -= 1
        if self.left == 0 and self.moment == "before":
            self.die()
        with (self.folder / "messages").open("a") as file:
            file.write(json.dumps([number, data.decode()]) + "\n")
        if self.left == 0 and self.moment == "behind":
            self.die()
        self.doomed = self.doomed or self.left == 0

    async def run(self) -> None:
        place = Place.make(self.folder, runtime_dir=self.folder / "r", idle_s=30)
        stage = Stage(place=place)
        backend = stage.backend(**json.loads((self.folder / "story.json").read_text()))
        messages = [json.loads(line) for line in _lines(self.folder / "messages")]
        batches = [json.loads(line) for line in _lines(self.folder / "batches")]
        start = turn_start(self.folder, token=int((self.folder / "token").read_text()))
        position = Position(**batches[-1][0]) if batches else Position()
        inputs = tuple((number, data.encode()) for number, data in messages)
        start = replace(start, position=position, inputs=inputs, inputs_sent=len(inputs))
        if messages and (start.folder / "keeper.json").exists():
            turn = await backend.adopt(start, self.store)
        else:
            turn = await backend.start(start, self.store)
        assert turn is not None
        for asked in turn.open_asks():
            await turn.answer(asked.key, ALLOW)
        async for batch in turn.batches():
            told = [repr(update) for update in batch.updates if not isinstance(update, Delta)]
            where = {"stdout": batch.position.stdout, "stderr": batch.position.stderr}
            with (self.folder / "batches").open("a") as file:
                file.write(json.dumps([where, told]) + "\n")
            if self.doomed:
                self.die()
            for update in batch.updates:
                if isinstance(update, Asked):
                    await turn.answer(update.key, ALLOW)
        print(turn.ended().outcome.stop_reason)
        await turn.release()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    asyncio.run(Server(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).run())
