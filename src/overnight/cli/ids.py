"""From what a person typed to one run."""

from __future__ import annotations

from typing import Final

from overnight.client import Client
from overnight.errors import InvalidId, NotFound

_WHOLE: Final = 30
"""Characters of a whole run id."""
_PAGES: Final = 10


async def resolve(client: Client, text: str) -> str:
    """The id of the run meant by a whole id, a unique beginning or end of one, or `last`.

    Looks at the newest 2000 runs. Raises NotFound, or InvalidId that lists the runs that fit.
    """
    wanted = text.strip().lower()
    if len(wanted) == _WHOLE and wanted.startswith("run_"):
        return wanted
    if wanted == "last":
        newest = (await client.runs(limit=1))["items"]
        if not newest:
            raise NotFound("there are no runs yet")
        return newest[0]["id"]
    if not wanted.removeprefix("run_"):
        raise InvalidId(f"{text!r} fits every run", mend="give more of its id")
    found = await _fitting(client, wanted)
    if not found:
        raise NotFound(f"no run fits {text!r}", mend="list them with: overnight ls")
    if len(found) > 1:
        raise InvalidId(
            f"{text!r} fits {len(found)} runs: {', '.join(found[:5])}", mend="give more of its id"
        )
    return found[0]


async def _fitting(client: Client, wanted: str) -> list[str]:
    beginning = wanted if wanted.startswith("run_") else f"run_{wanted}"
    found: list[str] = []
    cursor: str | None = None
    for _ in range(_PAGES):
        page = await client.runs(limit=200, cursor=cursor)
        ids = [run["id"] for run in page["items"]]
        found += [id for id in ids if id.startswith(beginning) or id.endswith(wanted)]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return found
