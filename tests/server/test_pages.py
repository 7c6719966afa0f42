"""What the shell's script does when a browser opens it: told by Node, with a stand-in for the browser."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from overnight.server import pages

BROWSER = """
const element = () => ({ hidden: true, textContent: '', kids: [], value: '',
  insertRow() { const row = element(); this.kids.push(row); return row },
  replaceChildren(...kids) { this.kids = kids } });
const elements = {}, calls = [];
global.document = { getElementById: id => elements[id] ||= element(), createElement: element };
global.location = { hash: process.argv[2], pathname: '/' };
global.history = { replaceState: (_, __, url) => calls.push('url ' + url) };
global.EventSource = function (url) { calls.push('stream ' + url) };
const run = { id: 'run_1', state: 'completed', goal: '<b>g</b>', backend: 'b', turn: 1, updated_at: 't' };
const answers = { history: { items: [{ role: 'user', text: '<i>hi</i>' }] }, runs: { items: [run] } };
global.fetch = async (url, options = {}) => {
  calls.push([options.method || 'GET', url, options.body].filter(Boolean).join(' '));
  const name = url.split('/').pop().split('?')[0];
  const ok = process.argv[3] !== 'refused';
  return { ok, json: async () => answers[name] || { name: 'N', state: 'active', detail: 'no' } };
};
require(process.argv[4]);
setTimeout(() => console.log(JSON.stringify({ calls, shown: Object.keys(elements).filter(id => !elements[id].hidden &&
  ['login', 'runs', 'session'].includes(id)), said: (elements.said?.kids || []).map(one => one.textContent) })), 20);
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not on PATH: the shell's script was not tried")
    folder: Path = tmp_path_factory.mktemp("pages")
    (folder / "browser.js").write_text(BROWSER, encoding="utf-8")
    (folder / "shell.js").write_text(pages._SCRIPT, encoding="utf-8")
    return [program, str(folder / "browser.js"), str(folder / "shell.js")]


def opened(node: list[str], fragment: str, how: str = "") -> dict[str, list[str]]:
    program, browser, shell = node
    done = subprocess.run(
        [program, browser, fragment, how, shell], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_shared_link_shows_that_session_and_leaves_no_code_in_the_address(node: list[str]) -> None:
    found = opened(node, "#share=SECRET&session=ses_1")
    assert found["calls"][:2] == ["url /#session=ses_1", 'POST /login {"share":"SECRET"}']
    assert found["calls"][-1] == "stream /api/v1/sessions/ses_1/stream?after=end"
    assert (found["shown"], found["said"]) == (["runs", "session"], ["user:\n\n<i>hi</i>"])


def test_a_one_time_code_shows_the_runs(node: list[str]) -> None:
    found = opened(node, "#code=SECRET")
    assert found["calls"][:2] == ["url /", 'POST /login {"code":"SECRET"}']
    assert found["shown"] == ["runs"]


def test_whoever_is_not_let_in_is_asked_to_log_in(node: list[str]) -> None:
    for fragment in ("", "#code=x", "#share=x&session=ses_1", "#session=ses_1"):
        assert opened(node, fragment, "refused")["shown"] == ["login"]
