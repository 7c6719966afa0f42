"""Leave for a shell line is no leave for another program that is given it."""

import pytest

from overnight.backends.acp.asking import Permission, covers
from overnight.backends.process.talk import OpenTerminal
from overnight.domain.action import Action

LEAVE = Permission(
    options=(("yes", "allow_once"),),
    action=Action(kind="execute", tool="shell", title="make test", command="make test"),
    item="call",
)


@pytest.mark.parametrize(
    "program, covered",
    [("sh", True), ("/bin/bash", True), ("/usr/bin/bash", True), ("/w/evil", False), ("/w/bin/sh", False)],
)
def test_only_a_shell_takes_the_line_for_what_it_says(program: str, covered: bool) -> None:
    wanted = OpenTerminal(
        key="k", terminal="terminal-1", command=program, args=("-c", "make test"), output_bytes=1
    )
    assert covers(LEAVE, wanted, "/w") is covered


@pytest.mark.parametrize(
    "cwd, environment, covered",
    [
        (None, {}, True),
        (".", {}, True),
        ("/w", {}, True),
        ("/w/", {}, True),
        ("elsewhere", {}, False),
        ("/tmp", {}, False),
        (None, {"MAKEFLAGS": "-f evil.mk"}, False),
    ],
)
def test_it_is_leave_for_the_folder_and_the_variables_that_were_shown(
    cwd: str | None, environment: dict[str, str], covered: bool
) -> None:
    wanted = OpenTerminal(
        key="k", terminal="terminal-1", command="make test", cwd=cwd, environment=environment, output_bytes=1
    )
    assert covers(LEAVE, wanted, "/w") is covered
