"""Where runs may go, told from text alone."""

import pytest

from overnight.domain.documents import checked
from overnight.domain.json_values import Unfit, dump
from overnight.domain.placement import (
    ANYWHERE,
    at_host,
    at_root,
    beneath,
    first_place,
    need_of,
    place_once_begun,
    satisfied,
    shared_chain,
)
from overnight.domain.spec import GitWorkspace, RunSpec
from overnight.domain.worker import Lane, Worker, acted, keeps_failing, why_unserved
from overnight.errors import Conflict
from overnight.ids import HostId, WorkerId

HOST = HostId("hst_a")
ROOTS = ("/srv", "/srv/deep")


def spec(workspace: object = None) -> RunSpec:
    return checked(RunSpec, {"goal": "g", "backend": "echo", "workspace": workspace})


@pytest.mark.parametrize(
    "workspace, place",
    [
        ("/home/w", at_host(HOST)),
        ("/srv", at_root("/srv")),
        ("/srv/x", at_root("/srv")),
        ("/srv/deep/x", at_root("/srv/deep")),
        ("/srvx", at_host(HOST)),
    ],
)
def test_a_directory_is_on_its_host_or_beneath_the_nearest_shared_root(workspace: str, place: str) -> None:
    assert first_place(spec(workspace), workspace, HOST, ROOTS) == place


def test_what_can_be_fetched_or_made_can_be_anywhere() -> None:
    git = spec(dump(GitWorkspace(git="https://x")))
    for one in (git, spec()):
        assert first_place(one, None, HOST, ROOTS) == ANYWHERE
    assert place_once_begun(git, ANYWHERE, HOST) == ANYWHERE
    assert place_once_begun(spec(), ANYWHERE, HOST) == at_host(HOST)
    assert place_once_begun(spec("/w"), at_host(HOST), HostId("hst_b")) == at_host(HOST)


@pytest.mark.parametrize(
    "root, path, chain",
    [
        ("/srv", "/srv", ("/srv",)),
        ("/srv", "/srv/a/b", ("/srv/a/b", "/srv/a", "/srv")),
        ("/", "/a/b", ("/a/b", "/a", "/")),
    ],
)
def test_names_beneath_a_shared_root(root: str, path: str, chain: tuple[str, ...]) -> None:
    assert beneath(root, path)
    assert shared_chain(root, path) == chain


def test_labels_that_a_worker_must_bear() -> None:
    need = need_of({"worker/gpu": "a100", "team": "a", "worker/": "x"})
    assert need == {"gpu": "a100"}
    assert satisfied(need, {"gpu": "a100", "zone": "eu"})
    assert not satisfied(need, {"gpu": "h100"})
    assert satisfied({}, {})


def worker(**changes: object) -> Worker:
    values: dict[str, object] = {
        "pk": 1, "id": WorkerId("wrk_a"), "host_id": HOST, "host_name": "h", "pid": 1, "version": "1", "slots": 1,
        "backends": ("echo",), "started_at": 0, "seen_at": 0,
    }  # fmt: skip
    return Worker(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "lane, workers, why",
    [
        ({}, [worker()], None),
        ({}, [], "host hst_a: no worker is there"),
        ({}, [worker(host_id=HostId("hst_b"))], "host hst_a: no worker is there"),
        ({"place": ANYWHERE}, [worker(host_id=HostId("hst_b"))], None),
        ({"backend": "codex"}, [worker()], "backend codex: offered by nobody on host hst_a"),
        (
            {"need": {"gpu": "x"}},
            [worker()],
            "label gpu=x: no worker bears it that offers echo on host hst_a",
        ),
        ({"need": {"gpu": "x"}}, [worker(labels={"gpu": "x"})], None),
        ({}, [worker(state="draining")], "every worker that could take it is draining"),
        ({}, [worker(state="quarantined"), worker()], None),
        ({"place": at_root("/srv")}, [worker()], "shared root /srv: no worker reaches it"),
        ({"place": at_root("/srv")}, [worker(places=(at_root("/srv"),))], None),
        ({}, [worker(backends=())], "host hst_a: no worker is there"),
    ],
)
def test_why_nobody_takes_a_run(lane: dict[str, object], workers: list[Worker], why: str | None) -> None:
    values: dict[str, object] = {"pk": 1, "place": at_host(HOST), "backend": "echo", "need": {}}
    assert why_unserved(Lane(**(values | lane)), tuple(workers)) == why  # type: ignore[arg-type]


def test_what_can_be_asked_of_a_worker() -> None:
    assert acted("active", "drain") == acted("draining", "drain") == "draining"
    assert acted("draining", "resume") == acted("quarantined", "release") == "active"
    for state, action in (("gone", "drain"), ("quarantined", "resume"), ("draining", "release")):
        with pytest.raises(Conflict):
            acted(state, action)  # type: ignore[arg-type]


def test_a_row_of_failures() -> None:
    minute = 60_000
    assert keeps_failing([0, minute, 2 * minute], 3 * minute, 3)
    assert not keeps_failing([0, minute, 2 * minute], 10 * minute, 3), "the first is too long ago"
    assert not keeps_failing([0] * 9, minute, 0)


def test_labels_that_name_a_worker_are_brief() -> None:
    """They are kept in an index, which takes no long ones."""
    many = {f"worker/{n}": "x" * 200 for n in range(9)}
    assert checked(RunSpec, {"goal": "g", "labels": many}).labels == many
    with pytest.raises(Unfit, match="longer than 2,000 bytes"):
        checked(RunSpec, {"goal": "g", "labels": {**many, "worker/9": "x" * 200}})
    others = {str(n): "x" * 200 for n in range(50)}
    assert checked(RunSpec, {"goal": "g", "labels": others}).labels == others
