"""A process that stores events and says which are acknowledged, for tests that kill it or fail its disk.

`python writing_child.py DATABASE COUNT`: one line of JSON for each unit, flushed at once.
"""

import asyncio
import json
import sys
from pathlib import Path

from overnight.clock import SystemClock
from overnight.domain.event import Draft
from overnight.errors import OvernightError
from overnight.ids import new_host_id
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.clocks import ManualClock
from overnight.testing.conformance.stage import Stage


def say(**fact: object) -> None:
    print(json.dumps(fact), flush=True)


async def main(path: Path, count: int) -> None:
    store = SqliteStore(path, SystemClock(), InprocNotifier())
    await store.start()
    stage = Stage(uow=store, notifier=InprocNotifier(), clock=ManualClock(), host=new_host_id(0))
    pk = await store.read(lambda tx: tx.installation.get("stream"))
    if pk is None:
        run = await stage.run()
        pk = str(run.pk)
        await store.write(lambda tx: tx.installation.put("stream", pk))
    say(stream=int(pk))

    async def client(name: int) -> None:
        for n in range(count):
            draft = Draft(type="output.recorded", data={"by": name, "n": n, "text": "x" * 500})
            try:
                (event,) = await store.write(lambda tx, draft=draft: tx.events.append(int(pk), [draft], 0))  # type: ignore[misc]
            except OvernightError as error:
                say(by=name, n=n, error=error.code)
            else:
                say(by=name, n=n, seq=event.seq)

    await asyncio.gather(*(client(name) for name in range(4)))
    await store.close()
    say(closed=True)


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
