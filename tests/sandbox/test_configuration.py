"""The operator's `[sandbox]` table, and what is hidden because the configuration names it."""

from pathlib import Path

import pytest

from overnight.compose.confinement import secrets
from overnight.config.settings import Settings, load
from overnight.errors import ConfigInvalid


def configured(folder: Path, text: str, **variables: str) -> Settings:
    file = folder / "operator" / "overnight.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    environment = {
        "HOME": str(folder / "home"), "XDG_RUNTIME_DIR": str(folder / "run"), "OVERNIGHT_CONFIG": str(file),
        "OVERNIGHT_DATA_DIR": str(folder / "data"), **variables,
    }  # fmt: skip
    (folder / "run").mkdir(exist_ok=True)
    return load(environment, cwd=folder / "work")


def test_without_a_word_agents_are_confined_and_reach_the_network(tmp_path: Path) -> None:
    sandbox = configured(tmp_path, "").sandbox
    assert (sandbox.mode, sandbox.network, sandbox.program) == ("auto", "on", None)
    assert (sandbox.readable, sandbox.writable, sandbox.hidden) == ((), (), ())


def test_the_table_and_the_variables(tmp_path: Path) -> None:
    text = (
        '[sandbox]\nmode = "off"\nprogram = "/opt/bwrap"\nnetwork = ["API.example.com", "*.org:443", "[::1]:8080"]\n'
        'readable = ["/opt/keys"]\nwritable = ["/srv/cache", "/dev/dri"]\nhidden = ["/srv/customers"]\n'
    )
    sandbox = configured(tmp_path, text).sandbox
    assert (sandbox.mode, sandbox.program) == ("off", Path("/opt/bwrap"))
    assert sandbox.network == ("api.example.com", "*.org:443", "[::1]:8080")
    assert (sandbox.readable, sandbox.hidden) == ((Path("/opt/keys"),), (Path("/srv/customers"),))
    assert sandbox.writable == (Path("/srv/cache"), Path("/dev/dri"))
    other = configured(tmp_path, text, OVERNIGHT_SANDBOX_NETWORK="off", OVERNIGHT_SANDBOX_MODE="auto").sandbox
    assert (other.mode, other.network) == ("auto", "off")


@pytest.mark.parametrize(
    "network",
    ['["on", "example.com"]', '["http://example.com"]', '["a b"]', '["example.com:99999"]', "[]", '["*"]'],
)
def test_a_network_that_means_nothing_is_refused(tmp_path: Path, network: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"sandbox\.network"):
        configured(tmp_path, f"[sandbox]\nnetwork = {network}\n")


def test_what_the_configuration_names_is_hidden_with_the_folder_around_it(tmp_path: Path) -> None:
    """An editor replaces a file, and a mount over a file that is replaced is gone."""
    key = tmp_path / "keys" / "one"
    key.parent.mkdir()
    key.write_text("value", encoding="utf-8")
    key.chmod(0o600)
    text = f'[secrets]\nKEY = {{ file = "{key}" }}\n[sandbox]\nhidden = ["/srv/customers"]\n'
    database = tmp_path / "elsewhere" / "overnight.db"
    database.parent.mkdir()
    found = set(secrets(configured(tmp_path, text, OVERNIGHT_DATABASE_URL=f"sqlite:///{database}")))
    expected = {
        tmp_path / "data", tmp_path / "run", tmp_path / "run" / "overnight", tmp_path / "operator", key.parent,
        database, Path(f"{database}-wal"), database.parent, Path("/srv/customers"),
        tmp_path / "home" / ".config" / "overnight",
    }  # fmt: skip
    assert expected <= found


def test_a_folder_with_workspaces_in_it_is_not_hidden_for_one_file(tmp_path: Path) -> None:
    text = f'workspace_roots = ["{tmp_path}/operator/projects"]\n'
    found = set(secrets(configured(tmp_path, text)))
    assert tmp_path / "operator" / "overnight.toml" in found
    assert tmp_path / "operator" not in found
