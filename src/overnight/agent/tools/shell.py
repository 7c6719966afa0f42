"""The tool `shell`: runs a command or a script in the workspace, to its end."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from overnight.agent.tools.apply_patch import apply_patch, preview_patch
from overnight.agent.tools.command import Ended, NotStarted, run_command
from overnight.agent.tools.environment import cleaned
from overnight.agent.tools.output import Output
from overnight.agent.tools.patch.forms import BarePatch, PatchCall, read_call
from overnight.agent.tools.tool import ForModel, Preview, ToolContext, ToolOutcome, ToolSpec
from overnight.agent.tools.workspace import NotThere, OutsideWorkspace

OUTPUTS: Final = "shell"
"""The folder in the agent's own folder where full outputs are kept."""
TIMEOUT_MS: Final = 30_000
LONGEST_MS: Final = 3_600_000
TIMED_OUT: Final = 124
"""What stands for the exit code of a command that had to be stopped."""

_DESCRIPTION: Final = """\
Run a command (`command`, a list of words) or a script (`script`, by bash) in the workspace and wait for its end. \
There is no terminal and no input. Everything that it starts is ended with it: nothing goes on in the background. Of a \
long output the beginning and the end are shown, and the file that has all of it is named."""

_PARAMETERS: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {
        "command": {
            "type": "array", "items": {"type": "string"}, "minItems": 1, "description": "Program and arguments.",
        },
        "script": {"type": "string", "minLength": 1, "description": "Instead of command: a script for bash -lc."},
        "workdir": {"type": "string", "description": "Folder to run in; the workspace if not given."},
        "timeout_ms": {
            "type": "integer", "minimum": 1, "maximum": LONGEST_MS, "description": "30000 if not given.",
        },
        "with_escalated_permissions": {
            "type": "boolean", "description": "Has no effect: no command leaves the walls around the agent.",
        },
        "justification": {"type": "string", "description": "Why, for whoever is asked whether it may run."},
    },
    "additionalProperties": False,
}  # fmt: skip


class Shell:
    """Implements `Tool`. A command that is really a patch is applied as one."""

    @property
    def spec(self) -> ToolSpec:
        """See `Tool`."""
        return ToolSpec(
            name="shell", description=_DESCRIPTION, parameters=_PARAMETERS,
            parallel_safe=False, is_destructive=True, required_permissions=frozenset({"read", "write", "execute"}),
        )  # fmt: skip

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:
        """See `Tool`."""
        asked = _asked(arguments)
        patch = _patch(asked)
        if patch is not None:
            return await preview_patch(patch.patch, _base(asked, patch), context)
        folder = _folder(asked, context)
        title = str(arguments.get("justification", "")).strip()[:500] or f"Run {asked.shown[:200]}"
        return Preview(title=title, paths=(folder,) if folder != "." else (), command=asked.shown)

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """See `Tool`."""
        asked = _asked(arguments)
        patch = _patch(asked)
        if patch is not None:
            return await apply_patch(patch.patch, _base(asked, patch), context)
        folder = context.workspace.path / _folder(asked, context)
        output = Output(context.folder / OUTPUTS, context.call_id, context.progress)
        try:
            ended = await run_command(
                asked.argv, folder=folder, output=output, timeout_s=asked.timeout_ms / 1000,
                environment=cleaned(context.environment, context.kept),
            )  # fmt: skip
        except NotStarted as error:
            raise ForModel(f"the command cannot be run: {error}") from None
        finally:
            output.close()
        return _outcome(asked, ended, output)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    argv: tuple[str, ...]
    shown: str
    workdir: str
    timeout_ms: int


def _asked(arguments: Mapping[str, Any]) -> _Asked:
    command, script = arguments.get("command"), arguments.get("script")
    if (command is None) == (script is None):
        raise ForModel(
            'Tool "shell" execution failed: invalid_arguments: give either command (a list of words) or script',
            code="invalid_arguments",
        )
    argv = tuple(command) if command is not None else ("bash", "-lc", str(script))
    if not argv[0] or any("\0" in word for word in argv):
        raise ForModel(
            "the command cannot be run: its words must not hold a NUL, and the first must not be empty"
        )
    return _Asked(
        argv=argv,
        shown=shlex.join(argv) if script is None else str(script),
        workdir=str(arguments.get("workdir", "") or "."),
        timeout_ms=int(arguments.get("timeout_ms", TIMEOUT_MS)),
    )


def _patch(asked: _Asked) -> PatchCall | None:
    try:
        return read_call(asked.argv)
    except BarePatch:
        raise ForModel("this is a patch without a command: call the tool apply_patch with it") from None


def _base(asked: _Asked, patch: PatchCall) -> str:
    if patch.folder is None or patch.folder.startswith("/"):
        return patch.folder or asked.workdir
    return f"{asked.workdir}/{patch.folder}"


def _folder(asked: _Asked, context: ToolContext) -> str:
    """Where to run, relative to the workspace. Raises ForModel."""
    try:
        with context.workspace.reading(asked.workdir, folder=True):
            return context.workspace.show(context.workspace.resolved(asked.workdir))
    except OutsideWorkspace as error:
        raise ForModel(f"workdir: {error}") from None
    except NotThere as error:
        raise ForModel(f"workdir {asked.workdir[:200]!r} is no folder of the workspace: {error}") from None


def _outcome(asked: _Asked, ended: Ended, output: Output) -> ToolOutcome:
    code = TIMED_OUT if ended.exit_code is None else ended.exit_code
    notes = []
    if ended.timed_out:
        notes.append(f"command timed out after {asked.timeout_ms} milliseconds\n")
    if ended.left:
        notes.append(f"{ended.left} processes of it could not be ended\n")
    if output.note:
        notes.append(f"{output.note}\n")
    shown = "".join(notes) + output.shown
    seconds = round(ended.seconds, 1)
    told = {"output": shown, "metadata": {"exit_code": code, "duration_seconds": seconds}}
    return ToolOutcome(
        text=json.dumps(told, ensure_ascii=False),
        ok=code == 0,
        code=None if code == 0 else "tool_timeout" if ended.timed_out else "tool_execution_error",
        structured={
            "exit_code": code, "timed_out": ended.timed_out, "duration_ms": round(ended.seconds * 1000),
            "output": shown, "output_bytes": output.total, "output_path": output.path and str(output.path),
        },
    )  # fmt: skip
