"""The two pages that the server has of its own: the shell and the documentation. Nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from typing import Any, Final

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c2330 }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #d9dee7 }
code, pre { font: 13px/1.45 ui-monospace, monospace } pre { background: #f4f6fa; padding: .8rem; overflow: auto }
input, button { font: inherit; padding: .4rem .7rem } .method { font-weight: 600 } details { margin: .4rem 0 1rem }
"""
_SCRIPT: Final = """
const at = id => document.getElementById(id);
const show = (...ids) => { for (const one of ['login', 'runs', 'session']) at(one).hidden = !ids.includes(one) };
const get = async path => { const answer = await fetch('/api/v1' + path); return answer.ok ? answer.json() : null };
const rows = new Map();
const row = run => {
  const line = rows.get(run.id) || at('list').insertRow(0);
  rows.set(run.id, line);
  const waits = run.waiting_for ? ': ' + (run.waiting_for.detail || run.waiting_for.kind) : '';
  const texts = [run.state + waits, run.goal.slice(0, 100), run.backend, 'turn ' + run.turn, run.updated_at];
  line.replaceChildren(...texts.map(text => {
    const cell = document.createElement('td'); cell.textContent = text; return cell }));
};
const open = async () => {
  const found = await get('/runs?limit=100');
  if (!found) return show('login');
  found.items.reverse().forEach(row);
  show('runs');
  new EventSource('/api/v1/stream?after=end').onmessage = message => row(JSON.parse(message.data));
};
const words = one => {
  const block = document.createElement('pre'); block.textContent = one.role + ':\\n\\n' + one.text; return block };
const openSession = async id => {
  const path = '/sessions/' + encodeURIComponent(id);
  const draw = async () => {
    const [session, history, runs] = await Promise.all(['', '/history', '/runs'].map(rest => get(path + rest)));
    if (!session || !history || !runs) return show('login');
    at('name').textContent = session.name + ' (' + session.state + ')';
    at('said').replaceChildren(...history.items.map(words));
    runs.items.reverse().forEach(row);
    show('session', 'runs');
  };
  await draw();
  if (!at('session').hidden) new EventSource('/api/v1' + path + '/stream?after=end').onmessage = draw;
};
const login = async (body, then) => {
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch('/login', { method: 'POST', headers, body: JSON.stringify(body) });
  if (answer.ok) return then();
  at('why').textContent = (await answer.json()).detail;
  show('login');
};
at('form').onsubmit = event => { event.preventDefault(); login({ code: at('code').value.trim() }, open) };
const [code, share, session] = ['code', 'share', 'session'].map(
  name => new URLSearchParams(location.hash.slice(1)).get(name));
history.replaceState(null, '', location.pathname + (session ? '#session=' + session : ''));
if (share) login({ share }, () => openSession(session));
else if (code) login({ code }, open);
else session ? openSession(session) : open();
"""
_DIGEST: Final = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
HEADERS: Final[Mapping[str, str]] = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": (
        f"default-src 'none'; script-src 'sha256-{_DIGEST}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
SHELL: Final = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Overnight</title><style>{_STYLE}</style>
<h1>Overnight</h1>
<form id="form"><p id="login" hidden><label>One-time code or token <input id="code" type="password" size="48"
autocomplete="off"></label> <button>Log in</button> <span id="why" role="alert"></span></p></form>
<div id="session" hidden><h2 id="name"></h2><div id="said"></div></div>
<div id="runs" hidden><p><a href="/docs">API</a></p><table><thead><tr><th>State<th>Goal<th>Backend<th>Turn<th>Changed
</thead><tbody id="list"></tbody></table></div>
<script>{_SCRIPT}</script></html>
""".encode()


def docs(openapi: Mapping[str, Any]) -> bytes:
    """The description of the API as one page."""
    sections: dict[str, list[str]] = {}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            sections.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(found)}" for tag, found in sections.items())
    schemas = "".join(
        f"<details><summary><code>{escape(name)}</code></summary>{_pre(schema)}</details>"
        for name, schema in openapi["components"]["schemas"].items()
    )
    title = f"{escape(openapi['info']['title'])} {escape(openapi['info']['version'])}"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{escape(openapi['info']['summary'])} "
        f'The same for machines: <a href="/openapi.json">/openapi.json</a>.</p>{body}<h2>Schemas</h2>{schemas}</html>'
    )
    return page.encode()


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parameters = "".join(_parameter(one) for one in operation.get("parameters", ()))
    table = f"<table>{parameters}</table>" if parameters else ""
    body = _content("Body", operation.get("requestBody", {}))
    answers = "".join(
        f"<tr><td>{escape(status)}<td>{escape(answer['description'])}"
        for status, answer in operation["responses"].items()
    )
    return (
        f'<h3><span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code></h3>'
        f"<p>{escape(operation.get('description', ''))}</p>{table}{body}"
        f"<details><summary>Answers</summary><table>{answers}</table></details>"
    )


def _parameter(parameter: Mapping[str, Any]) -> str:
    needed = ", required" if parameter.get("required") else ""
    shape = json.dumps({key: value for key, value in parameter["schema"].items() if key != "title"})
    about = escape(parameter.get("description", ""))
    return (
        f"<tr><td><code>{escape(parameter['name'])}</code> ({escape(parameter['in'])}{needed})"
        f"<td>{about} <code>{escape(shape)}</code>"
    )


def _content(title: str, holder: Mapping[str, Any]) -> str:
    content = holder.get("content", {})
    return "".join(
        f"<details><summary>{title}: {escape(kind)}</summary>{_pre(media.get('schema', {}))}</details>"
        for kind, media in content.items()
    )


def _pre(document: object) -> str:
    return f"<pre>{escape(json.dumps(document, indent=2, ensure_ascii=False))}</pre>"
