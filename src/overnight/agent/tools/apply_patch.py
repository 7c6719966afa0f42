"""The tool `apply_patch`: changes files as a patch says, all of them or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from overnight.agent.tools.patch.changes import changes_of
from overnight.agent.tools.patch.grammar import PatchInvalid, parse
from overnight.agent.tools.patch.plan import PatchFailed, Plan, make_plan
from overnight.agent.tools.patch.transaction import carry_out, recover
from overnight.agent.tools.threads import Stop, in_thread
from overnight.agent.tools.tool import Fatal, ForModel, Preview, ToolContext, ToolOutcome, ToolSpec
from overnight.agent.tools.workspace import OutsideWorkspace, Workspace
from overnight.workspaces import beneath

JOURNALS: Final = "patches"
"""The folder in the agent's own folder where patches under way are written down, where no other is named."""

_DESCRIPTION: Final = """\
Change, add, delete or move files of the workspace, all at once or not at all. The patch is text of this form:
*** Begin Patch
*** Update File: src/greeting.py
*** Move to: src/hello.py
@@ def greet(name):
     # kept lines begin with a space
-    print("hi")
+    print("hello", name)
*** Add File: notes.md
+every line of a new file begins with a plus
*** Delete File: old.txt
*** End Patch
"Move to" is optional. Give about three kept lines around each change; "@@ LINE" names a line above the place where \
that is not enough. "*** End of File" behind a chunk says that its lines are the last ones. Paths are relative."""

_PARAMETERS: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {
        "patch": {"type": "string", "description": "From '*** Begin Patch' to '*** End Patch'."},
        "cwd": {
            "type": "string",
            "description": "Folder that the paths are relative to; the workspace if not given.",
        },
    },
    "required": ["patch"],
    "additionalProperties": False,
}


class ApplyPatch:
    """Implements `Tool`. See `docs/concepts/agent-tools.md` for what is promised about files."""

    @property
    def spec(self) -> ToolSpec:
        """See `Tool`."""
        return ToolSpec(
            name="apply_patch", description=_DESCRIPTION, parameters=_PARAMETERS,
            parallel_safe=False, is_destructive=True, required_permissions=frozenset({"read", "write"}),
        )  # fmt: skip

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:
        """See `Tool`."""
        patch, cwd = _given(arguments)
        return await preview_patch(patch, cwd, context)

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """See `Tool`."""
        patch, cwd = _given(arguments)
        return await apply_patch(patch, cwd, context)


async def preview_patch(patch: str, cwd: str | None, context: ToolContext) -> Preview:
    """What applying `patch` in the folder `cwd` would do. Raises ForModel."""
    plan = await in_thread(lambda _: _planned(context.workspace, patch, cwd))
    changes = changes_of(plan)
    paths = tuple(change.path for change in plan.changes)
    return Preview(title=_title(paths), paths=paths, changes=changes, digest=plan.digest)


async def apply_patch(patch: str, cwd: str | None, context: ToolContext) -> ToolOutcome:
    """Apply `patch` in the folder `cwd`. Raises ForModel, and then nothing was changed."""
    plan = await in_thread(lambda stop: _applied(context, patch, cwd, stop))
    return ToolOutcome(
        text=plan.summary,
        structured={"success": True, "stdout": plan.summary, "stderr": ""},
        events=changes_of(plan),
    )


def recover_patches(context: ToolContext) -> tuple[str, ...]:
    """Take back what a patch has left that was killed half way; the paths. Before the first tool of a turn runs."""
    return recover(context.workspace.fd, _journals(context))


def _given(arguments: Mapping[str, object]) -> tuple[str, str | None]:
    cwd = arguments.get("cwd")
    return str(arguments["patch"]), None if cwd is None else str(cwd)


def _title(paths: tuple[str, ...]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"Patch {paths[0]}{more}" if paths else "Patch nothing"


def _planned(workspace: Workspace, patch: str, cwd: str | None) -> Plan:
    try:
        operations = parse(patch)
        return make_plan(workspace.fd, _base(workspace, cwd), operations)
    except (PatchInvalid, PatchFailed) as error:
        raise ForModel(str(error)) from None


def _applied(context: ToolContext, patch: str, cwd: str | None, stop: Stop) -> Plan:
    place = _journals(context)
    recover(context.workspace.fd, place)
    plan = _planned(context.workspace, patch, cwd)
    if context.approved is not None and context.approved != plan.digest:
        raise ForModel(
            "The files have changed since this patch was approved; nothing was changed. Ask again."
        )
    if stop.asked:
        return plan
    _refuse_lost(context.workspace)
    try:
        carry_out(context.workspace.fd, plan.changes, place)
    except PatchFailed as error:
        raise ForModel(str(error)) from None
    return plan


def _journals(context: ToolContext) -> Path:
    return context.journals or context.folder / JOURNALS


def _base(workspace: Workspace, cwd: str | None) -> list[str]:
    try:
        names = workspace.names(cwd or ".")
        if names:
            os.close(beneath.open_beneath(workspace.fd, "/".join(names), os.O_RDONLY | os.O_DIRECTORY))
    except OutsideWorkspace as error:
        raise PatchFailed(f"Invalid patch: cwd: {error}") from None
    except OSError as error:
        raise PatchFailed(
            f"Invalid patch: cwd {cwd!r} is no folder of the workspace: {error.strerror}"
        ) from None
    return names


def _refuse_lost(workspace: Workspace) -> None:
    """A workspace that was removed still has a descriptor, but nothing written there would be found."""
    if os.fstat(workspace.fd).st_nlink == 0:
        raise Fatal(f"the workspace {workspace.path} is gone")
