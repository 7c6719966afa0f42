"""The tools that an agent has, by name, and one way to call any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from overnight.agent.tools.apply_patch import ApplyPatch
from overnight.agent.tools.arguments import checked, read
from overnight.agent.tools.grep_files import GrepFiles
from overnight.agent.tools.list_dir import ListDir
from overnight.agent.tools.read_file import ReadFile
from overnight.agent.tools.shell import Shell
from overnight.agent.tools.tool import ForModel, Tool, ToolContext, ToolOutcome
from overnight.agent.tools.update_plan import UpdatePlan
from overnight.agent.tools.view_image import ViewImage


class Registry(Mapping[str, Tool]):
    """A closed set of tools, in the order in which a model is told of them. Raises ValueError for a name twice."""

    def __init__(self, *tools: Tool) -> None:
        self._tools = {tool.spec.name: tool for tool in tools}
        if len(self._tools) != len(tools):
            raise ValueError("two tools have the same name")

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    async def call(
        self, name: str, arguments: str | Mapping[str, object], context: ToolContext
    ) -> ToolOutcome:
        """Carry out a call, whatever it says: what is wrong with it is its outcome. Raises Fatal alone."""
        try:
            tool = self._tools.get(name)
            if tool is None:
                raise unsupported(name)
            given = read(name, arguments) if isinstance(arguments, str) else arguments
            checked(tool.spec, given)
            return await tool.run(given, context)
        except ForModel as refusal:
            return failed(refusal)

    async def call_custom(self, name: str, text: str, context: ToolContext) -> ToolOutcome:
        """A call whose argument is bare text, as some models are taught to send patches. Raises Fatal alone."""
        if name != "apply_patch" or name not in self._tools:
            return failed(unsupported(name, custom=True))
        return await self.call(name, {"patch": text}, context)


def default_tools() -> Registry:
    """What the built-in agent has by itself."""
    return Registry(
        ApplyPatch(), ListDir(), ReadFile(), GrepFiles(), Shell(), ViewImage(), UpdatePlan()
    )  # fmt: skip


def unsupported(name: str, *, custom: bool = False) -> ForModel:
    """What a model is told that calls a tool which it does not have."""
    kind = "custom tool call" if custom else "call"
    return ForModel(f"unsupported {kind}: {name[:200]}", code="tool_not_found")


def failed(refusal: ForModel) -> ToolOutcome:
    """The outcome of a call that was refused."""
    return ToolOutcome(
        text=refusal.text,
        ok=False,
        code=refusal.code,
        structured={"success": False, "stdout": "", "stderr": refusal.text},
    )
