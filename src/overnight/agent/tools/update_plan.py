"""The tool `update_plan`: the agent says what it is going to do and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from overnight.agent.tools.tool import (
    ForModel,
    PlanChanged,
    PlanStep,
    Preview,
    ToolContext,
    ToolOutcome,
    ToolSpec,
)

_DESCRIPTION: Final = """\
Say what the steps of your work are and how far you are, so that people can follow. Give the whole plan each time; at \
most one step is in_progress."""

_PARAMETERS: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {
        "explanation": {"type": "string", "description": "Why the plan is new or has changed."},
        "plan": {
            "type": "array",
            "maxItems": 200,
            "items": {
                "type": "object",
                "properties": {
                    "step": {"type": "string", "minLength": 1, "maxLength": 2000},
                    "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
                },
                "required": ["step", "status"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["plan"],
    "additionalProperties": False,
}


class UpdatePlan:
    """Implements `Tool`."""

    @property
    def spec(self) -> ToolSpec:
        """See `Tool`."""
        return ToolSpec(
            name="update_plan", description=_DESCRIPTION, parameters=_PARAMETERS,
            parallel_safe=False, is_destructive=False, required_permissions=frozenset(),
        )  # fmt: skip

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:
        """See `Tool`."""
        del context
        _changed(arguments)
        return Preview(title="Update the plan")

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """See `Tool`."""
        del context
        return ToolOutcome(text="Plan updated", events=(_changed(arguments),))


def _changed(arguments: Mapping[str, object]) -> PlanChanged:
    given = cast("list[dict[str, Any]]", arguments["plan"])
    steps = tuple(PlanStep(text=step["step"], status=step["status"]) for step in given)
    if sum(step.status == "in_progress" for step in steps) > 1:
        raise ForModel("at most one step can be in_progress at a time")
    return PlanChanged(explanation=str(arguments.get("explanation", "")), steps=steps)
