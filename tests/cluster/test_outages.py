"""The database is away for a while: agents that still have a keeper are taken up again, and no run is lost."""

from __future__ import annotations

import signal

from tests.cluster.harness import Start
from tests.cluster.test_takeover import check_apart, numbered, printed
from tests.e2e.harness import gap_free, let_pass

from overnight.testing.services.postgres import PostgresServer
from overnight.testing.signals import wait_until


def test_a_restart_of_the_database_costs_no_line(cluster: Start, postgres_server: PostgresServer) -> None:
    made = cluster(OVERNIGHT_LEASE_S="30")
    server, _ = made.crew("s", "w")
    run = server.submit("busy", mode="oneshot", workspace=str(made.folder("w")))["id"]
    [agent] = made.living(run)
    before = len(server.seen(run, "output.recorded"))
    postgres_server.stop(signal.SIGQUIT)
    let_pass(1.5)
    postgres_server.start()
    wait_until(server.ready, within=60, what="the server has its database again")
    server.seen(run, "output.recorded", count=before + 3)
    made.enough(run)
    assert server.until(run, "completed")["attempt"] == 1
    events = server.events(run)
    assert gap_free(events)
    assert all(e["data"]["adopted"] for e in events if e["type"] == "run.recovered")
    assert [life.pid for life in made.lives(run)] == [agent.pid]
    assert printed(server, run, 1) == numbered(made.lines(run, agent))


def test_an_outage_longer_than_the_lease_ends_the_agent_and_not_the_run(
    cluster: Start, postgres_server: PostgresServer
) -> None:
    made = cluster()
    server, worker = made.crew("s", "w")
    run = server.submit("busy", mode="oneshot", workspace=str(made.folder("w")))["id"]
    [first] = made.living(run)
    server.seen(run, "output.recorded")
    postgres_server.stop()
    try:
        wait_until(lambda: not first.alive, within=60, every=0.05, what="the keeper ends the agent")
        wait_until(lambda: worker.log("run.let_go"), within=60, every=0.05, what="its holder lets go of it")
        let_pass(1.0)
        assert len(made.lives(run)) == 1
    finally:
        postgres_server.start()
    [first, second] = made.living(run, 2)
    check_apart(first, second)
    made.enough(run)
    server.until(run, "completed")
    assert gap_free(server.events(run))
    assert printed(server, run, 2) == numbered(made.lines(run, second))
