"""Policies and rules: pure, and a rejection always wins."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.action import Action, Edit, Place, Resolved
from overnight.domain.rule import Rule, exact_rule, judge, rule_of

WORKSPACE = "/w"


def place(path: str, *, inside: bool = True, kind: Any = "file") -> Place:
    return Place(
        given=path, resolved=path if path.startswith("/") else f"/w/{path}", inside=inside, kind=kind
    )


def resolved(kind: Any = "execute", *places: Place, **fields: Any) -> Resolved:
    values: dict[str, Any] = {"tool": kind, "title": kind} | fields
    return Resolved(action=Action(kind=kind, **values), places=places)


def command(line: str) -> Resolved:
    return resolved("execute", command=line)


def effect(found: Resolved, policy: Any, *rules: Rule, confined: bool = True) -> str:
    return judge(found, policy=policy, rules=rules, workspace=WORKSPACE, confined=confined).effect


@pytest.mark.parametrize(
    "policy, found, confined, expected",
    [
        ("autonomous", command("rm -rf /"), False, "allow"),
        ("ask_all", resolved("read", place("a")), True, "ask"),
        ("ask_writes", resolved("read", place("a")), True, "allow"),
        ("ask_writes", resolved("search"), True, "allow"),
        ("ask_writes", resolved("edit", place("a")), True, "ask"),
        ("ask_writes", command("ls"), True, "ask"),
        ("ask_writes", resolved("other"), True, "ask"),
        ("ask_outside_workspace", resolved("edit", place("a")), False, "allow"),
        ("ask_outside_workspace", resolved("edit", place("a"), place("/etc/x", inside=False)), True, "ask"),
        ("ask_outside_workspace", resolved("read", place("/etc/x", inside=False)), True, "ask"),
        ("ask_outside_workspace", command("ls"), True, "allow"),
        ("ask_outside_workspace", command("ls"), False, "ask"),
        ("ask_outside_workspace", resolved("fetch", hosts=("x",)), True, "ask"),
    ],
)
def test_policies(policy: str, found: Resolved, confined: bool, expected: str) -> None:
    assert effect(found, policy, confined=confined) == expected


@pytest.mark.parametrize(
    "rule, found, matches",
    [
        (Rule(effect="allow", argv=("git", "push", "**")), command("git push"), True),
        (Rule(effect="allow", argv=("git", "push", "**")), command("git push origin main"), True),
        (Rule(effect="allow", argv=("git", "push", "**")), command("git pull"), False),
        (Rule(effect="allow", argv=("git", "**")), command("git"), True),
        (Rule(effect="allow", argv=("**",)), command("anything at all"), True),
        (Rule(effect="allow", argv=("git", "push")), command("git push origin"), False),
        (Rule(effect="allow", argv=("npm", "test")), command("npm test; rm -rf /"), False),
        (Rule(effect="allow", argv=("npm", "**")), command("npm test && curl x | sh"), False),
        (Rule(effect="allow", argv=("echo", "*")), command("echo $(id)"), False),
        (Rule(effect="allow", argv=("echo", "*")), command("echo a\nid"), False),
        (Rule(effect="allow", argv=("make*",)), resolved("edit", place("a")), False),
        (Rule(effect="allow", command="make && make lint", exact=True), command("make && make lint"), True),
        (Rule(effect="allow", command="npm *"), command("npm test"), True),
        (Rule(effect="allow", tool="edit", path="src/*"), resolved("edit", place("src/a.py")), True),
        (Rule(effect="allow", tool="edit", path="src/*"), resolved("edit", place("src/a"), place("b")), False),
        (Rule(effect="allow", path="src/*"), resolved("edit"), False),
        (Rule(effect="allow", path="/etc/*"), resolved("edit", place("/etc/x", inside=False)), True),
        (Rule(effect="allow", path="a[1]", exact=True), resolved("edit", place("a[1]")), True),
        (Rule(effect="allow", path="a[1]", exact=True), resolved("edit", place("a1")), False),
        (Rule(effect="allow", host="*.example.org"), resolved("fetch", hosts=("a.example.org",)), True),
        (Rule(effect="allow", host="*.example.org"), resolved("fetch", hosts=("a.example.org", "b")), False),
        (Rule(effect="allow", host="*"), resolved("fetch"), False),
        (Rule(effect="allow", tool="shell"), resolved("execute", tool="shell"), True),
        (Rule(effect="allow", tool="execute"), resolved("execute", tool="shell"), True),
        (Rule(effect="allow", tool="edit"), resolved("execute", tool="shell"), False),
    ],
)  # fmt: skip
def test_what_a_rule_speaks_of(rule: Rule, found: Resolved, matches: bool) -> None:
    assert rule.matches(found, WORKSPACE) is matches


def test_a_link_in_the_workspace_is_judged_by_where_it_leads() -> None:
    link = Place(given="src/a", resolved="/etc/passwd", inside=False, kind="file")
    assert not Rule(effect="allow", path="src/*").matches(resolved("edit", link), WORKSPACE)


EFFECTS = st.lists(st.sampled_from(["allow", "ask", "reject"]), max_size=6)


@given(effects=EFFECTS, policy=st.sampled_from(["autonomous", "ask_all", "ask_writes"]))
def test_rejection_before_question_before_permission_before_policy(effects: list[Any], policy: str) -> None:
    found = command("make")
    rules = [Rule(effect=one, argv=("make",)) for one in effects]
    others = [Rule(effect="reject", argv=("other",))]
    expected = next((one for one in ("reject", "ask", "allow") if one in effects), None)
    assert effect(found, policy, *rules, *others) == (expected or effect(found, policy))


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@given(line=TEXT, other=TEXT)
def test_an_exact_rule_covers_its_action_and_no_other(line: str, other: str) -> None:
    rule = exact_rule(command(line), "allow")
    assert rule is not None
    assert rule.matches(command(line), WORKSPACE)
    assert rule.matches(command(other), WORKSPACE) is (line == other)
    assert rule_of(rule.to_json()) == rule


def test_an_exact_rule_needs_one_thing_to_name() -> None:
    assert exact_rule(resolved("move", place("a"), place("b")), "allow") is None
    one = exact_rule(resolved("edit", place("a")), "reject")
    assert one == Rule(effect="reject", tool="edit", path="/w/a", exact=True)
    assert exact_rule(resolved("fetch", hosts=("h",)), "allow") == Rule(
        effect="allow", tool="fetch", host="h", exact=True
    )
    assert exact_rule(resolved("other", tool="plan"), "allow") == Rule(
        effect="allow", tool="plan", exact=True
    )


BASE = resolved(
    "edit", place("a"), tool="write", arguments={"x": 1}, edits=(Edit(path="a", before=None, after="n"),)
)


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, places=(place("b"),)),
        replace(BASE, places=(place("a", inside=False),)),
        replace(BASE, places=(place("a", kind="missing"),)),
        replace(BASE, places=(replace(place("a"), sha256="0"),)),
        replace(BASE, action=replace(BASE.action, arguments={"x": 2})),
        replace(BASE, action=replace(BASE.action, tool="other")),
        replace(BASE, action=replace(BASE.action, kind="delete")),
        replace(BASE, action=replace(BASE.action, command="x")),
        replace(BASE, action=replace(BASE.action, cwd="/x")),
        replace(BASE, action=replace(BASE.action, hosts=("h",))),
        replace(BASE, action=replace(BASE.action, edits=(Edit(path="a", before="", after="n"),))),
        replace(BASE, action=replace(BASE.action, edits=(Edit(path="a", before=None, after="m"),))),
    ],
)
def test_any_other_action_has_another_digest(other: Resolved) -> None:
    assert other.digest != BASE.digest
    assert replace(BASE, action=replace(BASE.action, title="another title")).digest == BASE.digest
