"""`overnight worker` where it cannot work: the status says of which kind the trouble is, the words how to mend it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.test_commands import here, overnight

from overnight.compose.hosts import offered
from overnight.domain.worker import Worker
from overnight.ids import new_host_id, new_worker_id

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


def test_an_address_that_is_none_is_refused(here: dict[str, str]) -> None:
    token = {"OVERNIGHT_TOKEN": "0123456789" * 3}
    for address, says in (
        ("http://127.0.0.1:port", "not the URL of a server"),
        ("http://nights.example", "not encrypted"),
        ("https://me:hush-hush@nights.example", "OVERNIGHT_TOKEN"),
    ):
        done = overnight(here | token, "worker", "--server", address)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
        assert "hush" not in done.stderr


def test_a_folder_that_cannot_be_made_is_named_for_a_worker_elsewhere_too(here: dict[str, str]) -> None:
    file = Path(here["HOME"]) / "file"
    file.touch()
    given = here | {"OVERNIGHT_TOKEN": "0123456789" * 3, "OVERNIGHT_DATA_DIR": str(file / "data")}
    done = overnight(given, "worker", "--server", "http://127.0.0.1:1")
    assert (done.returncode, str(file) in done.stderr, "OVERNIGHT_DATA_DIR" in done.stderr) == (
        2, True, True,
    ), done.stderr  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_worker_whose_server_is_away_can_be_ended(here: dict[str, str], number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "overnight", "worker", "--server", "http://127.0.0.1:1"],
        env=here | {"OVERNIGHT_TOKEN": "0123456789" * 3}, cwd=here["HOME"], stderr=subprocess.PIPE, text=True,
    ) as worker:  # fmt: skip
        try:
            assert worker.stderr is not None
            assert any("server.away" in line for line in worker.stderr)
            worker.send_signal(number)
            assert worker.wait(60) == 0
        finally:
            worker.kill()


def test_what_a_worker_offers_is_said_whole() -> None:
    now = 1_700_000_000_000
    worker = Worker(
        pk=0, id=new_worker_id(now), host_id=new_host_id(now), host_name="here", pid=1, version="0", slots=2,
        backends=("codex", "echo"), labels={"gpu": "a100"}, places=("root:/srv/work",), started_at=now, seen_at=now,
    )  # fmt: skip
    assert offered(worker) == "2 slots; backends codex, echo; label gpu=a100; shared /srv/work"
