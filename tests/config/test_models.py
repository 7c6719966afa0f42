"""What an operator says about language models, and what is refused."""

import json
from pathlib import Path

import pytest

from overnight.config.settings import Settings, load
from overnight.errors import ConfigInvalid


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "overnight.toml"


def read(config: Path, text: str = "", **environment: str) -> Settings:
    config.write_text(text)
    config.chmod(0o600)
    home = str(config.parent)
    return load({"HOME": home, "OVERNIGHT_CONFIG": str(config), **environment}, cwd=config.parent)


def test_without_a_word_the_usual_providers_are_there_and_say_what_they_need(config: Path) -> None:
    found = read(config).models
    assert {endpoint.name: endpoint.needs for endpoint in found.endpoints} == {
        "openai": "OPENAI_API_KEY",
        "openai-chat": "OPENAI_API_KEY",
        "anthropic": "ANTHROPIC_API_KEY",
        "google": "GEMINI_API_KEY",
        "github-copilot": "GITHUB_COPILOT_API_KEY",
    }


def test_keys_come_from_the_servers_environment_and_are_never_shown(config: Path) -> None:
    settings = read(config, ANTHROPIC_API_KEY="sk-ant-very-secret", GOOGLE_API_KEY="AIza-very-secret")
    ready = [endpoint.name for endpoint in settings.models.endpoints if not endpoint.needs]
    assert ready == ["anthropic", "google"]
    shown = json.dumps(list(settings.shown()), default=str)
    assert "very-secret" not in shown
    assert "very-secret" not in repr(settings)
    assert "sk-ant-very-secret" in settings.runs.hidden, "it is taken out of what agents print, too"


def test_any_compatible_service_can_be_named(config: Path) -> None:
    (config.parent / "key").write_text("the-key\n")
    (config.parent / "key").chmod(0o600)
    text = f"""
        [models]
        default = "near"
        aliases = {{ near = "local:qwen3" }}
        [models.providers.local]
        kind = "openai-chat"
        base_url = "http://127.0.0.1:8000/v1/"
        models = ["qwen3"]
        [models.providers.work]
        kind = "anthropic"
        key = {{ file = "{config.parent}/key" }}
        [models.providers.later]
        kind = "openai"
        base_url = "https://models.example/v1"
        key = {{ env = "LATER_KEY" }}
    """
    found = read(config, text).models
    local, work, later = found.endpoints[:3]
    assert (local.kind, local.base_url, local.key, local.needs) == (
        "openai-chat", "http://127.0.0.1:8000/v1", None, ""
    )  # fmt: skip
    assert local.models == ("qwen3",)
    assert (work.key, work.needs) == ("the-key", "")
    assert (later.key, later.needs) == (None, "LATER_KEY")
    assert found.default == "near"


def test_a_builtin_provider_keeps_its_key_beside_a_table_of_its_own(config: Path) -> None:
    text = '[models.providers.openai]\nmodels = ["gpt-5.6-terra"]\n'
    first = read(
        config, text, OPENAI_API_KEY="k", OPENAI_BASE_URL="https://proxy.example/v1"
    ).models.endpoints[0]
    assert (first.name, first.key, first.base_url) == ("openai", "k", "https://proxy.example/v1")
    assert first.models == ("gpt-5.6-terra",)


@pytest.mark.parametrize(
    "text, words",
    [
        ('[models.providers.x]\nkind = "openai-chat"', "needs base_url"),
        ('[models.providers.x]\nkind = "telepathy"', "must be one of"),
        ("[models.providers.x]\n", "must be one of"),
        ('[models.providers.openai]\nkind = "anthropic"', "another for this name"),
        ('[models.providers.anthropic]\napi_key = "sk-1"', "is unknown"),
        ('[models.providers.anthropic]\nkey = "sk-1"', "must be { env"),
        ('[models.providers.anthropic]\nkey = { file = "/nowhere/key" }', "No such file"),
        ('[models.providers.anthropic]\nbase_url = "ftp://x"', "http://"),
        ('[models.providers.anthropic]\nbase_url = "https://a:b@x"', "password"),
        ('[models.providers.anthropic]\nmodels = "all"', "must be a list"),
        ('[models.providers."a:b"]\nkind = "anthropic"', "has a name of other"),
        ('[models.providers.s]\nkind = "scripted"\nscript = "here.json"', "absolute path"),
        ('[models]\ndefault = "nonsense"', "names no model"),
        ('[models]\naliases = { a = "nobody:x" }', "names no model"),
        ("[models]\naliases = { a = 1 }", "must be NAME"),
        ("[models]\nproviders = { openai = 1 }", "must be a table"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(config: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        read(config, text)
    assert words in refused.value.detail
    assert "sk-1" not in refused.value.detail


def test_a_key_that_others_can_read_is_refused(config: Path) -> None:
    key = config.parent / "key"
    key.write_text("secret")
    key.chmod(0o644)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        read(config, f'[models.providers.anthropic]\nkey = {{ file = "{key}" }}')
