"""Settings: precedence, origins, and refusals that say what to do."""

import os
from pathlib import Path

import pytest

from overnight.config.parse import parsed
from overnight.config.settings import Settings, load
from overnight.config.table import SETTINGS
from overnight.errors import ConfigInvalid


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def loaded(home: Path, toml: str = "", **variables: str) -> Settings:
    file = home / ".config" / "overnight" / "overnight.toml"
    if toml:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(toml)
    return load({"HOME": str(home), "PATH": "/nonexistent", **variables}, cwd=Path("/srv/start"))


def origin(settings: Settings, key: str) -> str:
    return next(str(row["origin"]) for row in settings.shown() if row["key"] == key)


def test_an_empty_machine_gets_the_documented_defaults(home: Path) -> None:
    settings = loaded(home)
    assert settings.data_dir == home / ".local/share/overnight"
    assert settings.database == home / ".local/share/overnight/overnight.db"
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 4010)
    assert settings.workspace_roots == (home, Path("/srv/start"))
    assert (settings.slots, settings.timing.lease_s, settings.timing.renew_s) == (8, 15.0, 3.0)
    assert (settings.timing.grace_s, settings.storage.retention_days, settings.server.keepalive_s) == (
        5.0,
        30.0,
        15.0,
    )
    assert settings.runs.allow_environment == ("OVERNIGHT_VAR_*",)
    assert settings.runs.default_backend == "echo"
    names = [backend.name for backend in settings.backends]
    assert (names[:2], names[-1], len(names)) == (["codex", "claude"], "remote", 11)
    assert {str(row["origin"]).split()[0] for row in settings.shown()} == {"default"}


def test_environment_goes_before_the_file_and_the_file_before_the_default(home: Path) -> None:
    toml = "[worker]\nslots = 3\n\ngrace_s = 1\n"
    settings = loaded(home, toml, OVERNIGHT_SLOTS="5")
    assert (settings.slots, settings.timing.grace_s) == (5, 1.0)
    assert origin(settings, "worker.slots") == "environment OVERNIGHT_SLOTS"
    assert origin(settings, "worker.grace_s") == f"{home}/.config/overnight/overnight.toml line 4"
    assert origin(settings, "worker.lease_s") == "default"
    assert loaded(home, toml).slots == 3


def test_the_command_line_goes_before_everything(home: Path) -> None:
    settings = load(
        {"HOME": str(home), "OVERNIGHT_LISTEN": "127.0.0.1:1"}, overrides={"server.listen": "[::1]:4011"}
    )
    assert (settings.server.host, settings.server.port) == ("::1", 4011)
    assert origin(settings, "server.listen") == "command line"


def test_an_empty_variable_counts_as_unset(home: Path) -> None:
    assert loaded(home, OVERNIGHT_SLOTS="").slots == 8


def test_overnight_config_names_another_file(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("worker = { slots = 2 }\n")
    assert loaded(home, "[worker]\nslots = 3\n", OVERNIGHT_CONFIG=str(other)).slots == 2
    with pytest.raises(ConfigInvalid, match="there is no file"):
        loaded(home, OVERNIGHT_CONFIG=str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigInvalid, match="absolute"):
        loaded(home, OVERNIGHT_CONFIG="other.toml")


def test_nothing_in_the_working_directory_is_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / ".env").write_text("OVERNIGHT_SLOTS=99\n")
    (workspace / "overnight.toml").write_text("[worker]\nslots = 98\n")
    monkeypatch.chdir(workspace)
    assert load({"HOME": str(home), "PATH": ""}).slots == 8


def test_every_row_of_the_table_is_consistent(home: Path) -> None:
    assert len({setting.key for setting in SETTINGS}) == len(SETTINGS)
    variables = [setting.variable for setting in SETTINGS if setting.variable]
    assert len(set(variables)) == len(variables)
    for setting in SETTINGS:
        assert setting.description.endswith(".")
        assert setting.kind == "table" or setting.variable
        if setting.default is not None and not set("{$") & set(setting.default):
            parsed(setting, setting.default)
    assert {row["key"] for row in loaded(home).shown()} == {setting.key for setting in SETTINGS}


@pytest.mark.parametrize(
    "variable, value, says",
    [
        (
            "OVERNIGHT_SLOTS",
            "none",
            "(environment OVERNIGHT_SLOTS) must be a whole number from 1 to 10000",
        ),
        ("OVERNIGHT_SLOTS", "0", "from 1 to"),
        ("OVERNIGHT_SLOTS", "٣", "whole number"),
        ("OVERNIGHT_LEASE_S", "nan", "a number of seconds"),
        ("OVERNIGHT_LEASE_S", "6", "too short for a grace of 5 s"),
        ("OVERNIGHT_GRACE_S", "13", "too short for a grace of 13 s"),
        ("OVERNIGHT_DATA_DIR", "relative/path", "must be an absolute path, not 'relative/path'"),
        ("OVERNIGHT_DATABASE_URL", "mysql://u:hushhush@h/x", "must be sqlite:/// and an absolute path"),
        ("OVERNIGHT_DATABASE_URL", "postgresql://h:port/x", "or postgresql://USER@HOST/DATABASE"),
        ("OVERNIGHT_DATABASE_URL", "dbname=x password=hushhush", "or postgresql://USER@HOST/DATABASE"),
        ("OVERNIGHT_DATABASE_URL", "sqlite:///relative.db", "absolute path"),
        ("OVERNIGHT_REDIS_URL", "redis://localhost", "SQLite is the database of one process"),
        ("OVERNIGHT_REDIS_URL", "http://localhost", "must be redis://HOST"),
        ("OVERNIGHT_LISTEN", "4010", "address and port"),
        ("OVERNIGHT_LISTEN", "127.0.0.1:99999", "address and port"),
        ("OVERNIGHT_LISTEN", "0.0.0.0:4010", "would let other machines in"),
        ("OVERNIGHT_LISTEN", "[::]:4010", "would let other machines in"),
        ("OVERNIGHT_LISTEN", "example.org:4010", "would let other machines in"),
        ("OVERNIGHT_TOKEN", "short", "at least 20"),
        ("OVERNIGHT_WORKSPACE_ROOTS", "/srv:here", "absolute path"),
        ("OVERNIGHT_WORKSPACE_ROOTS", ":", "at least one"),
        ("OVERNIGHT_RETENTION_DAYS", "-1", "from 0"),
        ("OVERNIGHT_KEEPALIVE_S", "inf", "seconds"),
        ("OVERNIGHT_MAX_BYTES", "12 parsecs", "a size such as"),
        ("OVERNIGHT_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("OVERNIGHT_LOG_FORMAT", "xml", "one of auto, console, json"),
        ("OVERNIGHT_REQUIRE_SANDBOX", "perhaps", "true or false"),
        ("OVERNIGHT_DEFAULT_BACKEND", "nobody", "no backend"),
        ("OVERNIGHT_TLS_CERTIFICATE", "/nonexistent.pem", "go together"),
    ],
)
def test_a_bad_variable_is_named_with_what_it_takes(home: Path, variable: str, value: str, says: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        loaded(home, **{variable: value})
    assert says in caught.value.detail
    assert variable in caught.value.detail or caught.value.mend
    assert caught.value.mend


def test_a_bad_token_is_not_shown(home: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        loaded(home, OVERNIGHT_TOKEN="hush hush")
    assert "hush" not in str(caught.value)
    assert all("hush" not in str(row) for row in loaded(home, OVERNIGHT_TOKEN="hush" * 6).shown())


@pytest.mark.parametrize(
    "toml, says",
    [
        ("slots = 3\n", "line 1: there is no setting slots"),
        ("\n[worker]\nslotz = 3\n", "line 3: there is no setting worker.slotz"),
        ("[worker]\nslots = true\n", "line 2) must be a whole number"),
        ("[worker\n", "is not valid TOML"),
        ("[nothing]\n", "line 1: there is no setting nothing"),
        ("[backends.mine]\ncommand = ['x']\n", "backends.mine.kind"),
        ("[backends.mine]\nkind = 'command'\n", "line 1) is of kind command and needs command"),
        ("[backends.mine]\nkind = 'command'\ncommand = 'sh -c x'\n", "line 3) must be a list of texts"),
        (
            "[backends.mine]\nkind = 'command'\ncommand = ['./agent']\n",
            "line 3) must begin with an absolute path",
        ),
        ("[backends.codex]\nprogram = 'codex'\n", "line 2) must be an absolute path"),
        ("[backends.codex]\nlogin = 'mine'\n", "line 2) must be one of none, user"),
        ("[backends.codex]\nkind = 'command'\ncommand = ['x']\n", "line 2) cannot be command"),
        ("[backends.codex]\nenvironment = { 'A B' = 'x' }\n", "line 2) must be a table of texts"),
        ("[backends.echo]\nargs = ['x']\n", "line 2) is not used by this kind"),
        ("[backends.codex]\nshell = 'x'\n", "line 2) is not used by this kind"),
        ("[backends.'a b']\nkind = 'echo'\n", "has a name of other than"),
        ("[runs.max_limits]\nturns = 0\n", "line 2) does not fit"),
        ("[runs.max_limits]\nturnz = 1\n", "line 2) does not fit"),
        ("[secrets]\nKEY = 'plain'\n", "line 2) must be {"),
        ("[secrets]\nKEY = { env = 'NOT_SET' }\n", "line 2) names the variable NOT_SET, which is not set"),
        ("[secrets]\nKEY = { file = '/nonexistent' }\n", "No such file"),
        ("[secrets]\nKEY = { env = 'HOME', file = '/x' }\n", "must be {"),
    ],
)
def test_a_bad_file_is_named_with_its_line(home: Path, toml: str, says: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        loaded(home, toml)
    assert says in caught.value.detail
    assert "overnight.toml" in caught.value.detail


def test_backends_come_from_the_file_and_the_known_ones_are_there_anyway(home: Path) -> None:
    settings = loaded(
        home,
        """
[backends.codex]
program = "/opt/codex/bin/codex"
environment = { CODEX_HOME = "/srv/codex-home" }
login = "user"
args = ["-c", "model_provider=mock"]
[backends.my-agent]
kind = "command"
command = ["python3", "/srv/my_agent.py"]
""",
    )
    codex, mine = settings.backends[:2]
    assert (codex.kind, codex.program, codex.login) == ("codex", Path("/opt/codex/bin/codex"), "user")
    assert (codex.args, codex.environment) == (
        ("-c", "model_provider=mock"),
        {"CODEX_HOME": "/srv/codex-home"},
    )
    assert (mine.kind, mine.command) == ("command", ("python3", "/srv/my_agent.py"))
    assert {backend.name for backend in settings.backends[2:]} >= {"claude", "gemini", "echo"}
    assert "/srv/codex-home" not in str(list(settings.shown()))


def test_the_default_backend_is_what_is_there(home: Path, tmp_path: Path) -> None:
    mine = "[backends.mine]\nkind = 'command'\ncommand = ['/bin/true']\n"
    assert loaded(home, mine).runs.default_backend == "mine"
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    settings = loaded(home, mine, PATH=str(tmp_path))
    assert settings.runs.default_backend == "claude"
    assert origin(settings, "runs.default_backend") == "default (its program is there)"
    assert loaded(home, mine, OVERNIGHT_DEFAULT_BACKEND="echo").runs.default_backend == "echo"


def test_secrets_come_from_variables_and_private_files(home: Path) -> None:
    file = home / "key"
    file.write_text("from-a-file\n")
    toml = f"[secrets]\nA = {{ env = 'SOURCE' }}\nB = {{ file = '{file}' }}\n"
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        loaded(home, toml, SOURCE="x")
    file.chmod(0o600)
    settings = loaded(home, toml, SOURCE="from-a-variable")
    assert settings.runs.secrets == {"A": "from-a-variable", "B": "from-a-file"}
    assert "from-a" not in str(list(settings.shown()))


def test_ceilings_that_are_not_named_are_wide_open(home: Path) -> None:
    limits = loaded(home, "[runs.max_limits]\nturns = 10\ncost_usd = 5.0\n").runs.max_limits
    assert limits is not None
    assert (limits.turns, limits.cost_usd, limits.tokens, limits.turn_timeout_s) == (10, 5.0, None, 604_800)
    assert loaded(home, "[worker]\nslots = 1\n").runs.max_limits is None


def test_listening_to_other_machines_needs_a_word_of_its_own(home: Path, tmp_path: Path) -> None:
    assert loaded(home, OVERNIGHT_LISTEN="0.0.0.0:80", OVERNIGHT_BEHIND_PROXY="true").server.host == "0.0.0.0"
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("x")
    settings = loaded(
        home,
        OVERNIGHT_LISTEN="0.0.0.0:443",
        OVERNIGHT_TLS_CERTIFICATE=str(tmp_path / "cert.pem"),
        OVERNIGHT_TLS_KEY=str(tmp_path / "key.pem"),
    )
    assert settings.server.tls_key == tmp_path / "key.pem"


def test_sizes_are_read_with_their_units(home: Path) -> None:
    assert loaded(home, OVERNIGHT_MAX_BYTES="10GB").storage.max_bytes == 10_000_000_000
    assert loaded(home, OVERNIGHT_MAX_BYTES="2 GiB").storage.max_bytes == 2 << 30
    assert loaded(home, "[storage]\nreserve_bytes = 0\n").storage.reserve_bytes == 0


def test_a_file_that_others_may_write_is_refused(home: Path) -> None:
    loaded(home, "[worker]\nslots = 1\n")
    file = home / ".config/overnight/overnight.toml"
    file.chmod(0o666)
    with pytest.raises(ConfigInvalid, match="written by everybody"):
        loaded(home)
    if os.getuid() == 0:
        file.chmod(0o644)
        os.chown(file, 65_534, 65_534)
        with pytest.raises(ConfigInvalid, match="another user"):
            loaded(home)


def test_spelling_mistakes_are_noticed(home: Path) -> None:
    settings = loaded(home, OVERNIGHT_SLOT="1", OVERNIGHT_VAR_X="1", OVERNIGHT_SLOTS="1")
    assert settings.sources.strangers() == ["OVERNIGHT_SLOT"]


def test_nothing_secret_is_in_the_repr(home: Path) -> None:
    toml = "[secrets]\nA = { env = 'SOURCE' }\n[backends.codex]\nenvironment = { KEY = 'hush-hush' }\n"
    settings = loaded(home, toml, SOURCE="hush-hush", OVERNIGHT_TOKEN="hush-hush" * 3)
    assert "hush" not in repr(settings)
