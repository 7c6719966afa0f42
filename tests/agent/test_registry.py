"""The set of tools, and what a model is told whose call is wrong."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator
from tests.agent.trees import Ground, plant

from overnight.agent.tools.arguments import checked
from overnight.agent.tools.registry import Registry, default_tools
from overnight.agent.tools.tool import ForModel, ToolSpec
from overnight.agent.tools.update_plan import UpdatePlan

pytestmark = pytest.mark.anyio


def test_the_default_set() -> None:
    tools = default_tools()
    assert list(tools) == [
        "apply_patch",
        "list_dir",
        "read_file",
        "grep_files",
        "shell",
        "view_image",
        "update_plan",
    ]
    assert {name for name, tool in tools.items() if tool.spec.parallel_safe} == {
        "list_dir", "read_file", "grep_files", "view_image",
    }  # fmt: skip
    assert {name for name, tool in tools.items() if tool.spec.is_destructive} == {"apply_patch", "shell"}
    for name, tool in tools.items():
        spec = tool.spec
        assert spec.name == name
        assert spec.description
        Draft202012Validator.check_schema(spec.parameters)
        assert spec.parameters["additionalProperties"] is False
        assert spec.is_destructive == ("write" in spec.required_permissions)


def test_no_name_twice() -> None:
    with pytest.raises(ValueError, match="same name"):
        Registry(UpdatePlan(), UpdatePlan())


async def test_an_unknown_tool(ground: Ground) -> None:
    tools = default_tools()
    outcome = await tools.call("frobnicate", "{}", ground.context)
    assert (outcome.text, outcome.ok, outcome.code) == (
        "unsupported call: frobnicate",
        False,
        "tool_not_found",
    )
    outcome = await tools.call_custom("frobnicate", "x", ground.context)
    assert outcome.text == "unsupported custom tool call: frobnicate"


async def test_a_patch_as_bare_text(ground: Ground) -> None:
    outcome = await default_tools().call_custom(
        "apply_patch", "*** Begin Patch\n*** Add File: a\n+x\n*** End Patch", ground.context
    )
    assert outcome.ok
    assert ground.read("a") == b"x\n"


async def test_a_refusal_is_an_outcome(ground: Ground) -> None:
    outcome = await default_tools().call("apply_patch", {"patch": "x"}, ground.context)
    assert (outcome.ok, outcome.code) == (False, "tool_execution_error")
    assert outcome.structured == {"success": False, "stdout": "", "stderr": outcome.text}
    plant(ground.root, {"a": "x\n"})
    assert (await default_tools().call("read_file", '{"file_path": "a"}', ground.context)).text == "L1: x"


@pytest.mark.parametrize("name, arguments, words", [
    ("read_file", "{", "the arguments are no JSON"),
    ("read_file", "[1]", "the arguments must be a JSON object"),
    ("read_file", "", "$: 'file_path' must be given"),
    ("read_file", '{"file_path": 3}', "$.file_path: must be of type string, not 3"),
    ("read_file", '{"file_path": ""}', "$.file_path: must have at least 1, not 0"),
    ("read_file", '{"file_path": "a", "mode": "x"}', '$.mode: must be one of "slice", "indentation", not "x"'),
    ("read_file", '{"file_path": "a", "path": 1}', "$: 'path' is not known here; known: file_path, offset"),
    ("read_file", '{"file_path": "a", "indentation": {"max_levels": -1}}', "$.indentation.max_levels: must be at"),
    ("shell", '{"command": []}', "$.command: must have at least 1, not 0"),
    ("shell", '{"command": ["a", 1]}', "$.command[1]: must be of type string, not 1"),
    ("shell", '{"script": "x", "timeout_ms": 99999999}', "$.timeout_ms: must be at most 3600000, not 99999999"),
    ("update_plan", '{"plan": [{"step": "a"}]}', "$.plan[0]: 'status' must be given"),
])  # fmt: skip
async def test_wrong_arguments_say_where_and_what_to_mend(
    ground: Ground, name: str, arguments: str, words: str
) -> None:
    outcome = await default_tools().call(name, arguments, ground.context)
    assert (outcome.ok, outcome.code) == (False, "invalid_arguments")
    assert outcome.text.startswith(f'Tool "{name}" execution failed: invalid_arguments: {words}')
    assert outcome.text.endswith(". Mend that and call it again.")


def test_many_faults_are_told_in_part() -> None:
    spec = ToolSpec(
        name="t", description="d", parallel_safe=True, is_destructive=False, required_permissions=frozenset(),
        parameters={"type": "object", "additionalProperties": {"type": "string"}},
    )  # fmt: skip
    with pytest.raises(ForModel) as refused:
        checked(spec, {f"a{n}": n for n in range(9)})
    assert refused.value.text.count("must be of type") == 5
    assert "and 4 more" in refused.value.text
