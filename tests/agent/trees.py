"""Trees of files: made from a table, and told apart to the last bit."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from overnight.agent.tools.apply_patch import ApplyPatch
from overnight.agent.tools.tool import ForModel, Tool, ToolContext, ToolOutcome
from overnight.agent.tools.workspace import open_workspace

OUTSIDE: Mapping[str, bytes] = {
    "precious.txt": b"precious\n",
    "deep/keys": b"secret\n",
    "passwd": b"root:x\n",
}
Snapshot = dict[str, tuple[object, ...]]


def snapshot(root: Path) -> Snapshot:
    """Every entry beneath `root` with its kind, permissions and content; links by where they lead."""
    found: Snapshot = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            status = path.lstat()
            shown = path.relative_to(root).as_posix()
            if stat.S_ISLNK(status.st_mode):
                found[shown] = ("link", os.readlink(path))
            elif stat.S_ISDIR(status.st_mode):
                found[shown] = ("folder",)
            elif stat.S_ISREG(status.st_mode):
                found[shown] = ("file", stat.S_IMODE(status.st_mode), _content(path))
            else:
                found[shown] = ("other", stat.S_IFMT(status.st_mode))
    return found


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 20)


def plant(root: Path, files: Mapping[str, bytes | str]) -> None:
    """Write `files` beneath `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@dataclass(slots=True)
class Ground:
    """A workspace, what tools are given there, and the tree outside."""

    root: Path
    outside: Path
    context: ToolContext
    before: Snapshot = field(default_factory=dict)

    def assert_outside_untouched(self) -> None:
        assert snapshot(self.outside) == self.before

    async def patch(self, body: str, cwd: str | None = None) -> ToolOutcome:
        """Apply the operations in `body`."""
        arguments = {"patch": wrap(body)} | ({} if cwd is None else {"cwd": cwd})
        return await ApplyPatch().run(arguments, self.context)

    async def refused(self, body: str) -> str:
        """The words in which a patch is refused; nothing has changed then."""
        was = snapshot(self.root)
        try:
            await self.patch(body)
        except ForModel as error:
            assert snapshot(self.root) == was
            assert not list(self.context.folder.rglob("*.json"))
            return error.text
        raise AssertionError("the patch was not refused")

    async def run(self, tool: Tool, **arguments: object) -> ToolOutcome:
        """Call a tool."""
        return await tool.run(arguments, self.context)

    async def told(self, tool: Tool, **arguments: object) -> str:
        """What a tool says that refuses."""
        try:
            found = await tool.run(arguments, self.context)
        except ForModel as error:
            return error.text
        raise AssertionError(f"not refused: {found.text}")

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()


def wrap(body: str) -> str:
    return f"*** Begin Patch\n{body}\n*** End Patch" if body else "*** Begin Patch\n*** End Patch"


@contextlib.contextmanager
def ground_at(place: Path) -> Iterator[Ground]:
    root, outside, folder = place / "workspace", place / "outside", place / "own"
    for each in (root, outside, folder):
        each.mkdir()
    plant(outside, OUTSIDE)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(place)}
    with open_workspace(root, readable=(folder,)) as workspace:
        context = ToolContext(workspace=workspace, folder=folder, environment=environment)
        yield Ground(root, outside, context, snapshot(outside))
