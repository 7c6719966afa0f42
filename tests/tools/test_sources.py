"""Files that `overnight tools serve` is given: what is wrong with one is said with its place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from overnight.cli.sourcing import tools_of
from overnight.client.socket.tools import Progress
from overnight.errors import InvalidInput

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize(
    "text, says",
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("def broken(:", "line 1"),
        ("x = 1\ny = x.z", "line 2"),
        ("raise SystemExit(3)", "SystemExit"),
        ("", "has no tools"),
        ("@tool\ndef f(a): ...", "the parameter a has no annotation"),
        ("@tool\ndef f(*a: int): ...", "names of their own"),
        ("@tool\ndef f(a: object()): ...", "make no schema"),
        ("@tool\ndef f(a: 'Nothing'): ...", "make no schema"),
        ("@tool\ndef f() -> int:\n    yield 1", "a generator is no tool"),
        ("@tool(name='x')\ndef f(): ...\n@tool(name='x')\ndef g(): ...", "two tools are named x"),
        ("@tool(name='a b')\ndef f(): ...", "'a b': name"),
    ],
)
def test_a_file_that_is_bad_is_refused_and_says_why(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(
        f"{'from overnight.client.tools import tool' if '@tool' in text else ''}\n{text}\n".lstrip()
    )
    with pytest.raises(InvalidInput) as refused:
        tools_of([str(file)], "")
    assert says in refused.value.detail
    assert refused.value.detail.startswith(str(file))


def test_files_see_what_lies_beside_them_and_a_prefix_renames(tmp_path: Path) -> None:
    (tmp_path / "beside_of_sources.py").write_text("WORD = 'beside'\n")
    file = tmp_path / "good.py"
    file.write_text(
        "from beside_of_sources import WORD\nfrom overnight.client.tools import tool\n"
        "@tool\ndef f(a: int) -> str:\n    'Says.'\n    return WORD\n"
    )
    found = tools_of([str(file)], "my_")
    assert list(found) == ["my_f"]
    assert (found["my_f"].meta["name"], found["my_f"].meta["description"]) == ("my_f", "Says.")


async def test_the_example_of_the_manual_runs(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "serve-tools.md"
    file = tmp_path / "shop.py"
    file.write_text(page.read_text().partition("```python\n")[2].partition("```")[0])
    tools = tools_of([str(file)], "")

    async def hear(_: Progress) -> None:
        """Nobody listens."""

    assert (await tools["add"].run({"a": 2}, hear)).text == "3"
    assert (await tools["deploy"].run({"target": "north"}, hear)).text == "north is up"
    assert tools["deploy"].meta["destructive"]
