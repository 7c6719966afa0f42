"""From what a person typed to one run, or one session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from overnight.client import Client
from overnight.errors import InvalidId, NotFound

_WHOLE: Final = 30
"""Characters of a whole id."""
_PAGES: Final = 10


async def resolve(client: Client, text: str) -> str:
    """The id of the run meant by a whole id, a unique beginning or end of one, or `last`.

    Looks at the newest 2000 runs. Raises NotFound, or InvalidId that lists the runs that fit.
    """

    async def page(limit: int, cursor: str | None) -> tuple[list[str], str | None]:
        found = await client.runs(limit=limit, cursor=cursor)
        return [run["id"] for run in found["items"]], found["next_cursor"]

    return await _resolve(page, text, what="run", prefix="run_", mend="overnight ls")


async def resolve_session(client: Client, text: str) -> str:
    """The same for sessions."""

    async def page(limit: int, cursor: str | None) -> tuple[list[str], str | None]:
        found = await client.sessions(limit=limit, cursor=cursor)
        return [session["id"] for session in found["items"]], found["next_cursor"]

    return await _resolve(page, text, what="session", prefix="ses_", mend="overnight sessions ls")


Pages = Callable[[int, str | None], Awaitable[tuple[list[str], str | None]]]


async def _resolve(page: Pages, text: str, *, what: str, prefix: str, mend: str) -> str:
    wanted = text.strip().lower()
    if len(wanted) == _WHOLE and wanted.startswith(prefix):
        return wanted
    if wanted == "last":
        newest, _ = await page(1, None)
        if not newest:
            raise NotFound(f"there are no {what}s yet")
        return newest[0]
    if not wanted.removeprefix(prefix):
        raise InvalidId(f"{text!r} fits every {what}", mend="give more of its id")
    found = await _fitting(page, wanted, prefix)
    if not found:
        raise NotFound(f"no {what} fits {text!r}", mend=f"list them with: {mend}")
    if len(found) > 1:
        raise InvalidId(
            f"{text!r} fits {len(found)} {what}s: {', '.join(found[:5])}", mend="give more of its id"
        )
    return found[0]


async def _fitting(page: Pages, wanted: str, prefix: str) -> list[str]:
    beginning = wanted if wanted.startswith(prefix) else f"{prefix}{wanted}"
    found: list[str] = []
    cursor: str | None = None
    for _ in range(_PAGES):
        ids, cursor = await page(200, cursor)
        found += [id for id in ids if id.startswith(beginning) or id.endswith(wanted)]
        if cursor is None:
            break
    return found
