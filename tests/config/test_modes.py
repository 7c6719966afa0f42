"""Profiles: modes under names of the operator's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.config.settings import Settings, load
from overnight.errors import ConfigInvalid


def loaded(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "overnight.toml"
    file.write_text(text, encoding="utf-8")
    return load({"HOME": str(tmp_path), "OVERNIGHT_CONFIG": str(file), "PATH": ""}, cwd=tmp_path)


def test_a_profile_is_a_mode_with_defaults(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
        [sessions]
        active_hours = 2
        suspended_days = 0.5
        [modes.nightly]
        base = "continuous"
        label = "Nightly"
        model = "big"
        limits = { turns = 200 }
        [modes.talk]
        base = "chat"
        """,
    )
    nightly, talk = [settings.runs.modes.get(name) for name in ("nightly", "talk")]
    assert (nightly.base, nightly.label, nightly.defaults) == (
        "continuous", "Nightly", {"model": "big", "limits": {"turns": 200}},
    )  # fmt: skip
    assert (talk.base, talk.label, talk.defaults) == ("chat", "talk", {})
    assert [entry.id for entry in settings.runs.modes.offered()] == [
        "oneshot", "continuous", "chat", "nightly", "talk",
    ]  # fmt: skip
    assert settings.sessions.patience_ms("active") == 7_200_000
    assert settings.sessions.patience_ms("suspended") == 43_200_000
    assert settings.sessions.patience_ms("completed") is None


@pytest.mark.parametrize(
    "text, words",
    [
        ('[modes.chat]\nlabel = "mine"', "modes.chat"),
        ('[modes.Nightly]\nbase = "chat"', "modes.Nightly"),
        ('[modes.n]\nbase = "gossip"', "modes.n.base"),
        ("[modes.n]\nlabel = 5", "modes.n.label"),
        ('[modes.n]\nmodle = "x"', "modle"),
        ("[modes.n]\nlimits = { turns = 0 }", "limits.turns"),
        ('[modes.n]\ngoal = "x"', "goal"),
        ("modes.n = 5", "modes.n"),
        ("[sessions]\nactive_hours = 0", "sessions.active_hours"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name_and_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"line \d") as refused:
        loaded(tmp_path, text)
    assert words in str(refused.value)
