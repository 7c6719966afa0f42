"""What is refused at submission: with a stable code, the mend, and without any trace."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.rig import ME

from overnight.domain.backend import Capabilities
from overnight.domain.documents import checked
from overnight.domain.spec import LimitsSpec, RunSpec
from overnight.domain.states import State
from overnight.engine.policy import RunPolicy
from overnight.errors import BackendNotReady, OvernightError
from overnight.ports.tables import RunFilter

pytestmark = pytest.mark.anyio

OPERATOR = RunPolicy(
    default_backend="fake",
    max_sandbox="workspace_write",
    max_limits=LimitsSpec(turns=10, tokens=None, cost_usd=None),
    allow_environment=("OVERNIGHT_VAR_*", "CI"),
    secrets={"GITHUB": "s3cret-value"},
)

REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"backend": "nobody"}, "unknown_backend"),
    ({"fallback": ["nobody/model"]}, "unknown_backend"),
    ({"mode": "plan"}, "mode_unavailable"),
    ({"mode": "gossip"}, "mode_unavailable"),
    ({"agent": "reviewer"}, "unknown_agent"),
    ({"sandbox": "full_access"}, "above_ceiling"),
    ({"limits": {"turns": 11}}, "above_ceiling"),
    ({"limits": {"turns": None}}, "above_ceiling"),
    ({"approval_policy": "ask_all"}, "policy_unsupported"),
    ({"secrets": ["GITLAB"]}, "unknown_secret"),
    ({"completion": {"pattern": "(unclosed"}}, "invalid_pattern"),
    ({"completion": {"pattern": "(a)\\1"}}, "invalid_pattern"),
    ({"completion": {"pattern": "x*"}}, "invalid_pattern"),
    ({"not_before": "tomorrow"}, "invalid_request"),
    ({"not_before": "2030-01-01T00:00:00"}, "invalid_request"),
    ({"session_id": "ses_00000000000000000000000000"}, "not_found"),
    ({"workspace": "/"}, "workspace_refused"),
    ({"workspace": "/does/not/exist"}, "workspace_refused"),
    ({"workspace": "relative/path"}, "workspace_refused"),
    ({"completion": {"log": "../WORKLOG.md"}}, "invalid_request"),
    ({"completion": {"stop_file": "/tmp/stop"}}, "invalid_request"),
    ({"prompt": {"decision_log": "a/../../b"}}, "invalid_request"),
    ({"prompt": {"questions": "nul\x00byte"}}, "invalid_request"),
    ({"prompt": {"references": ["fine.md", "/etc/passwd"]}}, "invalid_request"),
    *(
        ({"environment": {name: "x"}}, "environment_refused")
        for name in (
            "SECRET_THING", "LD_PRELOAD", "ld_preload", "PYTHONPATH", "NODE_OPTIONS", "PATH", "HOME", "GIT_DIR",
            "https_proxy", "OVERNIGHT_TOKEN", "FAKE_HOME", "A B", "", "1X",
        )
    ),
    ({"environment": {"CI": "nul\x00byte"}}, "environment_refused"),
    ({"environment": {"CI": "x" * 100_000}}, "environment_refused"),
]  # fmt: skip


@pytest.mark.parametrize("body,code", REFUSALS, ids=lambda value: str(value)[:60])
async def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    rig: Make, body: dict[str, Any], code: str
) -> None:
    reserved = Capabilities(sandbox=("workspace_write",), reserved_environment=("FAKE_*",))
    server = await rig(fake(capabilities=reserved), policy=OPERATOR)
    with pytest.raises(OvernightError) as refused:
        await server.submit(**{"limits": {"turns": 5}, **body})
    assert refused.value.code == code
    page = await server.store.read(lambda tx: tx.runs.page(RunFilter(), limit=10))
    assert page.runs == ()


async def test_what_the_operator_allows_is_accepted_and_masked(rig: Make) -> None:
    server = await rig(fake(), policy=OPERATOR)
    environment = {"CI": "1", "OVERNIGHT_VAR_X": "a value"}
    run = await server.submit(environment=environment, secrets=["GITHUB"], limits={"turns": 1})
    assert run.spec.environment == {"CI": "***", "OVERNIGHT_VAR_X": "***"}
    assert await server.store.read(lambda tx: tx.runs.secret_environment(run.pk)) == environment
    assert run.spec.backend == "fake"
    ended = await server.until(run)
    assert ended.state in {State.COMPLETED, State.FAILED}


async def test_a_policy_below_the_operators_least_is_refused(rig: Make) -> None:
    policy = RunPolicy(default_backend="fake", min_policy="ask_writes")
    asking = Capabilities(sandbox=("workspace_write",), approvals=True)
    server = await rig(fake(capabilities=asking), policy=policy)
    for asked in ("autonomous", "ask_outside_workspace"):
        with pytest.raises(OvernightError) as refused:
            await server.submit(approval_policy=asked)
        assert refused.value.code == "above_ceiling"


async def test_a_required_sandbox_that_is_missing_is_refused(rig: Make) -> None:
    policy = RunPolicy(default_backend="fake", require_sandbox=True)
    server = await rig(fake(capabilities=Capabilities()), policy=policy)
    with pytest.raises(OvernightError) as refused:
        await server.submit(sandbox="read_only")
    assert refused.value.code == "sandbox_unavailable"


async def test_a_required_sandbox_found_missing_after_admission_fails_the_run(rig: Make) -> None:
    policy = RunPolicy(default_backend="fake", require_sandbox=True)
    backend = fake(capabilities=Capabilities(sandbox=("workspace_write",)))
    server = await rig(backend, policy=policy, supervise=False)
    run = await server.submit(mode="oneshot")
    backend.capabilities = Capabilities()
    await server.supervisor.start()
    ended = await server.until(run, State.FAILED)
    assert ended.error is not None
    assert ended.error.code == "sandbox_unavailable"


async def test_a_preflight_known_to_fail_is_refused_with_its_problems(rig: Make) -> None:
    server = await rig(fake(problem="no login"))
    await server.directory.check("fake")
    with pytest.raises(BackendNotReady) as refused:
        await server.submit()
    assert "no login" in refused.value.detail
    assert refused.value.extra["problems"]


async def test_a_preview_shows_prompt_and_configuration_and_makes_nothing(rig: Make) -> None:
    server = await rig(fake())
    work = server.workspace()
    (work / "NOTES.md").write_text("remember the milk", encoding="utf-8")
    spec = checked(
        RunSpec, {"goal": "buy it", "workspace": str(work), "prompt": {"references": ["NOTES.md"]}}
    )
    shown = await server.service.preview(spec, ME)
    assert "buy it" in shown.prompt
    assert "remember the milk" in shown.prompt
    assert shown.spec.backend == "fake"
    assert sorted(path.name for path in work.iterdir()) == ["NOTES.md"]
    assert (await server.store.read(lambda tx: tx.runs.page(RunFilter(), limit=10))).runs == ()
