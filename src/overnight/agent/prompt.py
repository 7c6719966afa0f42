"""What the agent is told about itself and the place it works in, before anything that a person says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_ORDER = """\
You are the coding agent of Overnight. You work in the folder {workspace} of a real machine, through tools, until what
the person asked for is done; nobody watches, and nobody answers while you work.

How to work:
- Look before you change: read the files that matter, and follow the style, the tests and the rules that you find
  there (AGENTS.md, CONTRIBUTING, the comments).
- Change files with apply_patch, a small and whole change at a time. Use shell for everything else that programs do.
- After a change, run what shows that it is right. Say so only of what you saw.
- Keep a plan with update_plan when the work has more than two steps; at most one step is in progress.
- When something fails, read what it says, find out why, and mend the cause. Do not repeat a call that has failed
  without having changed something.
- Do not undo or tidy up what you were not asked to touch, and do not commit unless you were asked to.
- When you are done, or cannot go on, end with a short account: what was done, what was seen to work, what is left.

The place:
{facts}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is told about the place."""

    workspace: str
    system: str
    """Kind of machine."""
    commands: str
    """The shell that runs them."""
    sandbox: str
    network: str = "unknown"
    asks: bool = False
    """A person is asked before changes and commands."""
    extra: Mapping[str, str] = field(default_factory=dict)


def system_prompt(place: Surroundings, instructions: str = "") -> str:
    """The whole of it; `instructions` are the operator's own and come last."""
    facts = {
        "system": place.system,
        "shell": place.commands,
        "sandbox": place.sandbox,
        "network": place.network,
        "approval": "a person is asked before you change files or run commands; a refusal tells you why"
        if place.asks
        else "nobody is asked; what the sandbox does not allow fails",
        **place.extra,
    }
    told = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    text = _ORDER.format(workspace=place.workspace, facts=told)
    return f"{text}\n\n{instructions}" if instructions else text
