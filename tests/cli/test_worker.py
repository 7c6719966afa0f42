"""`overnight worker` where it cannot work: the status says of which kind the trouble is, the words how to mend it."""

from __future__ import annotations

from tests.cli.test_commands import here, overnight

__all__ = ["here"]

NOWHERE = "postgresql://night:hush-hush@127.0.0.1:1/overnight"


def test_a_database_of_one_server_is_refused(here: dict[str, str]) -> None:
    done = overnight(here, "worker")
    assert done.returncode == 2
    assert "OVERNIGHT_DATABASE_URL" in done.stderr
    assert "overnight up" in done.stderr


def test_what_makes_no_sense_is_said_before_anything_is_tried(here: dict[str, str]) -> None:
    for arguments, says in (
        (("--label", "gpu"), "NAME=VALUE"),
        (("--backend", "nobody"), "'nobody'"),
        (("--slots", "0"), "--slots"),
        (("--shared-root", "/nonexistent"), "no directory"),
        (("--exit-when-idle", "soon"), "90s"),
    ):
        done = overnight(here | {"OVERNIGHT_DATABASE_URL": NOWHERE}, "worker", *arguments)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_a_database_that_is_not_there_is_named_without_its_password(here: dict[str, str]) -> None:
    for command in (("worker",), ("up", "--no-worker")):
        done = overnight(here | {"OVERNIGHT_DATABASE_URL": NOWHERE}, *command)
        assert done.returncode == 1, done.stderr
        assert "127.0.0.1" in done.stderr
        assert "hush-hush" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
