"""What a worker offers and what all of them may do at once, as the operator writes it."""

from pathlib import Path

import pytest

from overnight.config import settings
from overnight.config.queue import QueueSettings
from overnight.domain.queue_limits import Rate
from overnight.errors import ConfigInvalid


def load(tmp_path: Path, text: str = "", **variables: str) -> QueueSettings:
    file = tmp_path / "overnight.toml"
    file.write_text(text)
    environment = {
        "HOME": str(tmp_path), "OVERNIGHT_CONFIG": str(file), "OVERNIGHT_WORKSPACE_ROOTS": str(tmp_path),
    }  # fmt: skip
    return settings.load(environment | variables, cwd=tmp_path).queue


def test_nothing_is_limited_unless_somebody_says_so(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert found == QueueSettings(quarantine_after=3)
    assert found.offered(("echo", "codex")) == ("echo", "codex")


def test_all_that_can_be_said(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        [queue]
        backend_limits = { codex = 4 }
        label_limits = { "team=a" = 2, "x=y=z" = 1 }
        rates = { codex = "30/hour", echo = "2 / second" }
        quarantine_after = 0
        [worker]
        labels = ["gpu=a100"]
        backends = ["codex", "echo"]
        """,
        OVERNIGHT_WORKER_LABELS="gpu=h100, zone=eu",
        OVERNIGHT_WORKER_SHARED_ROOTS=str(tmp_path.resolve()),
    )
    assert dict(found.limits.backends) == {"codex": 4}
    assert dict(found.limits.labels) == {("team", "a"): 2, ("x", "y=z"): 1}
    assert dict(found.limits.rates) == {
        "codex": Rate(starts=30, seconds=3600), "echo": Rate(starts=2, seconds=1),
    }  # fmt: skip
    assert (found.quarantine_after, dict(found.labels)) == (0, {"gpu": "h100", "zone": "eu"})
    assert found.offered(("claude", "codex")) == ("codex",)
    assert found.places == (f"root:{tmp_path.resolve()}",)


@pytest.mark.parametrize(
    "text, named",
    [
        ("[queue]\nbackend_limits = { codex = 0 }", "queue.backend_limits.codex"),
        ("[queue]\nbackend_limits = { codex = true }", "queue.backend_limits.codex"),
        ('[queue]\nlabel_limits = { "team" = 2 }', "queue.label_limits.team"),
        ("[queue]\nbackend_limits = { codx = 4 }", "queue.backend_limits.codx"),
        ('[queue]\nrates = { codx = "30/hour" }', "queue.rates.codx"),
        ('[queue]\nrates = { codex = "30/fortnight" }', "queue.rates.codex"),
        ('[queue]\nrates = { codex = "0/hour" }', "queue.rates.codex"),
        ("[queue]\nrates = { codex = 30 }", "queue.rates.codex"),
        ("[queue]\nquarantine_after = -1", "queue.quarantine_after"),
        ('[worker]\nlabels = ["gpu"]', "worker.labels"),
        ('[worker]\nlabels = ["worker/gpu=a100"]', "worker.labels"),
        ('[worker]\nlabels = ["gpu=a100", "gpu=h100"]', "worker.labels"),
        ('[worker]\nbackends = ["unheard"]', "worker.backends"),
        ('[worker]\nshared_roots = ["/nowhere/at/all"]', "worker.shared_roots"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigInvalid, match=named.replace(".", r"\.")):
        load(tmp_path, text)


def test_a_shared_root_is_named_as_it_is_and_lies_beneath_the_roots(tmp_path: Path) -> None:
    real = tmp_path.resolve() / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(ConfigInvalid) as refused:
        load(tmp_path, OVERNIGHT_WORKER_SHARED_ROOTS=str(tmp_path / "link"))
    assert refused.value.mend == f"name {real} itself"
    with pytest.raises(ConfigInvalid, match="no root of workspaces"):
        load(tmp_path, OVERNIGHT_WORKER_SHARED_ROOTS="/usr")
