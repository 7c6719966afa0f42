"""`overnight agent`: the built-in coding agent, on the Agent Client Protocol."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Annotated

import typer

from overnight.cli.output import say


def agent(
    model: Annotated[str | None, typer.Option("--model", help="Its model; see: overnight models.")] = None,
    effort: Annotated[str | None, typer.Option("--effort", help="low, medium or high.")] = None,
    mode: Annotated[
        str, typer.Option("--mode", help="work (changes things), ask (asks before), read (only looks).")
    ] = "work",
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", help="The server's socket: unix:/path, ws://host:port or wss://host:port."
        ),
    ] = None,
) -> None:
    """Be a coding agent: the Agent Client Protocol over standard input and output.

    Runs of the backend `agent` start this by themselves, and any editor that speaks the protocol can. Its models and
    shared tools are the server's: this process has no key. OVERNIGHT_AGENT_ENDPOINT and OVERNIGHT_AGENT_TOKEN say which
    server and as whom; without them it is the server that runs on this machine.
    """
    from overnight.agent.secrecy import keep_to_itself
    from overnight.compose.builtin_agent import run_agent
    from overnight.config import logging
    from overnight.config.agent_process import TOKEN, agent_settings
    from overnight.domain.redaction import Redactor

    given = {"model": model, "effort": effort, "mode": mode, "endpoint": endpoint}
    settings = agent_settings(os.environ, given)
    keep_to_itself(TOKEN)
    # Standard output is the protocol's alone.
    logging.configure("warning", "json", redactor=Redactor([settings.token] if settings.token else []))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run_agent(settings, _tell))


def _tell(words: str) -> None:
    # A client that does not read our errors has closed them.
    with contextlib.suppress(OSError):
        say(f"overnight agent: {words}")
