"""Cheap questions that preflights ask: a program's version, whether a key is let in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Version = tuple[int, int, int]
_VERSION = re.compile(r"\b(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A short command that was run to its end; `code` None: it could not be started or took too long."""

    code: int | None
    out: str = ""
    err: str = ""


async def run_short(
    argv: list[str], env: Mapping[str, str], *, cwd: Path | None = None, within_s: float = 20
) -> Ran:
    """Run a command with exactly that environment and no input; killed after `within_s`. Never raises."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        return Ran(code=None, err=str(error))
    try:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
    except TimeoutError:
        return Ran(code=None, err=f"no answer within {within_s:g} s")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ran(
        code=process.returncode, out=out.decode("utf-8", "replace"), err=err.decode("utf-8", "replace")
    )


def version_in(text: str) -> Version | None:
    """The first `x.y.z` in a text."""
    found = _VERSION.search(text)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


KeyAnswer = Literal["accepted", "refused", "unknown"]


async def ask_with_key(url: str, headers: Mapping[str, str], *, within_s: float = 8) -> tuple[KeyAnswer, str]:
    """GET `url` with a key: refused only on 401 or 403, unknown when nobody answers; and a word about it."""
    import httpx2  # noqa: PLC0415  # only preflights need it, and the idle server shall stay small

    try:
        async with httpx2.AsyncClient(timeout=within_s) as client:
            response = await client.get(url, headers=dict(headers))
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return "unknown", f"{url} does not answer: {str(error) or type(error).__name__}"
    if response.status_code in {401, 403}:
        return "refused", f"{url} answers {response.status_code}"
    return "accepted" if response.is_success else "unknown", f"{url} answers {response.status_code}"
