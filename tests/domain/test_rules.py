"""Policies and rules: pure, and a rejection always wins."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.action import Action, Edit, Place, Resolved
from overnight.domain.redaction import Redactor
from overnight.domain.rule import Rule, exact_rule, judge, rule_of
from overnight.engine.tool_question import leave

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
        ("ask_outside_workspace", resolved("edit"), False, "ask"),
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


NO_PUSH = Rule(effect="reject", argv=("git", "push", "**"))


@pytest.mark.parametrize(
    "line",
    [
        "git push", "git  push", "git\tpush origin", "cd x && git push", "true; git push", "git push|cat", "(git push)",
        "git 'push'", 'g"it" pu\\sh', "\\git push", "/usr/bin/git push", "git -C . push", "git --no-pager push",
        "A=1 git push", "env A=1 git push", "sudo -u bob git push", "bash -c 'git push'", 'sh -c "cd x; git push"',
        "echo $(git push)", "echo `git push`", 'echo "a $(git push) b"', "cat <(git push)", "eval git push",
        "xargs git push",
        "git 2>/dev/null push", "git >x push", "git \\\n push", "if true; then git push; fi", "echo 'open\ngit push",
        "cat <<E\nit's\ngit push\nE", "GIT push", "timeout 5 git push", "find . -exec git push {} +",
    ],
)  # fmt: skip
def test_no_spelling_of_a_command_gets_round_its_rejection(line: str) -> None:
    assert effect(command(line), "autonomous", NO_PUSH) == "reject"
    by_line = Rule(effect="reject", command="git push*")
    assert line.startswith("git -") or effect(command(line), "autonomous", by_line) == "reject"


@pytest.mark.parametrize(
    "line", ["$X push", "g${X}it push", "git $X", "{git,push}", 'bash -c "$X"', "a" * 40_000]
)
def test_what_cannot_be_read_is_asked_where_a_rule_could_speak_of_it(line: str) -> None:
    assert effect(command(line), "autonomous", NO_PUSH) == "ask"
    assert effect(command(line), "autonomous", Rule(effect="allow", argv=("git", "push"))) == "allow"


@pytest.mark.parametrize(
    "line",
    [
        "git status", "git commit -m push", "echo git push", "make push", "git log && ls $HOME",
        "if [ -f x ]; then ls; fi",
        "find . -name '*.py'", "for f in *.py; do echo $f; done", "A=$B make", "$HOME/bin/make push", "git add *.py",
    ],
)  # fmt: skip
def test_other_commands_are_left_alone(line: str) -> None:
    assert effect(command(line), "autonomous", NO_PUSH) == "allow"


NO_SECRETS = Rule(effect="reject", path="secrets/*")


@pytest.mark.parametrize(
    "found",
    [
        resolved("edit", place("a"), place("secrets/b")),
        resolved("edit", place("SECRETS/b")),
        resolved("delete", place("secrets")),
        resolved("move", place("/w")),
        resolved("delete", Place(given="secrets/link", resolved="/elsewhere", inside=False, kind="file")),
        resolved("read", Place(given="harmless", resolved="/w/secrets/b", inside=True, kind="file")),
        resolved("edit", Place(given="x/../secrets/b", resolved="/w/secrets/b", inside=True, kind="missing")),
    ],
)
def test_no_path_gets_round_a_rejection(found: Resolved) -> None:
    assert effect(found, "autonomous", NO_SECRETS) == "reject"
    for path in ("./secrets", "secrets/", "/w/secrets/**"):
        assert effect(found, "autonomous", Rule(effect="reject", path=path)) == "reject"


def test_a_workspace_whose_name_looks_like_a_pattern_keeps_its_rules() -> None:
    there = Place(given="secrets/a", resolved="/w[1]/secrets/a", inside=True, kind="file")
    judged = judge(
        resolved("edit", there), policy="autonomous", rules=[NO_SECRETS], workspace="/w[1]", confined=True
    )
    assert judged.effect == "reject"


def test_other_hosts_do_not_hide_one_that_is_rejected() -> None:
    found = resolved("fetch", hosts=("good.org", "Evil.org."))
    assert effect(found, "autonomous", Rule(effect="reject", host="evil.org")) == "reject"


@pytest.mark.parametrize(
    "rule, found",
    [
        (Rule(effect="allow", path="src/*"), resolved("execute", place("src/x"), command="rm -rf ~")),
        (
            Rule(effect="allow", host="good.org"),
            resolved("execute", command="curl evil", hosts=("good.org",)),
        ),
        (Rule(effect="allow", host="good.org"), resolved("edit", place("/etc/x"), hosts=("good.org",))),
        (Rule(effect="allow", path="src/*"), resolved("fetch", place("src/x"), hosts=("evil.org",))),
    ],
)
def test_a_permission_covers_nothing_that_it_is_silent_on(rule: Rule, found: Resolved) -> None:
    assert effect(found, "ask_all", rule) == "ask"


@pytest.mark.parametrize(
    "asked, other",
    [
        (command("make"), resolved("execute", place("/tmp/evil", inside=False), command="make")),
        (resolved("execute", place("sub"), command="make"), command("make")),
        (command("make"), resolved("execute", command="make", arguments={"env": {"PATH": "/tmp/evil"}})),
        (resolved("fetch", hosts=("h",)), resolved("fetch", place("/etc/passwd"), hosts=("h",))),
        (resolved("other", tool="execute"), command("rm -rf ~")),
        (resolved("other", tool="db"), resolved("edit", place("a"), tool="db")),
    ],
)
def test_always_covers_only_what_it_shows(asked: Resolved, other: Resolved) -> None:
    rule = exact_rule(asked, "allow")
    assert rule is not None
    assert effect(asked, "ask_all", rule) == "allow"
    assert effect(other, "ask_all", rule) == "ask"


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
    assert exact_rule(resolved("fetch", place("a"), place("b"), hosts=("h",)), "allow") is None
    assert exact_rule(resolved("execute", tool="shell"), "allow") is None
    assert exact_rule(resolved("execute", command="make", arguments={"env": {"A": "1"}}), "allow") is None
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


def test_a_rule_is_no_longer_than_an_index_takes() -> None:
    """What asks for leave offers none that is longer; see `engine.tool_question`."""

    def offered(command: str) -> list[str]:
        action = Action(kind="execute", tool="shell", title="t", arguments={}, command=command, cwd="/w")
        return [option.kind for option in leave(Resolved(action=action), Redactor())]

    assert offered("x" * 1500) == ["allow_once", "allow_always", "reject_once", "reject_always"]
    assert offered("x" * 2500) == ["allow_once", "reject_once"]
