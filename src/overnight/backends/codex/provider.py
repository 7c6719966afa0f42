"""Which model service this Codex will talk to, and with what key: read from its own configuration, never guessed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from overnight.backends.process.settings import ProgramSettings

KEYS = ("CODEX_API_KEY", "OPENAI_API_KEY")
"""The program reads only the first for its own service; people have the second."""

DEFAULT_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A model service as Codex's configuration describes it."""

    id: str
    base_url: str
    key_variable: str | None
    """The variable that holds the key; None where no key is needed."""
    built_in: bool
    """The program's own service, which also knows logins."""


def provider_of(args: Sequence[str], config: Path | None) -> Provider:
    """The provider after `config` (config.toml, where there is one) and the `-c` overrides among `args`."""
    settings = _file(config)
    for override in _overrides(args):
        _merge(settings, override)
    chosen = str(settings.get("model_provider", "openai"))
    described = settings.get("model_providers", {}).get(chosen, {})
    if chosen == "openai" and not described:
        url = str(settings.get("openai_base_url", DEFAULT_URL))
        return Provider(id=chosen, base_url=url, key_variable="CODEX_API_KEY", built_in=True)
    return Provider(
        id=chosen,
        base_url=str(described.get("base_url", DEFAULT_URL)),
        key_variable=described.get("env_key"),
        built_in=bool(described.get("requires_openai_auth", False)),
    )


def key_of(settings: ProgramSettings, provider: Provider) -> str | None:
    """The key for `provider` from the operator's table, else from the server's environment."""
    variable = provider.key_variable
    if variable is None:
        return None
    names = KEYS if variable in KEYS else (variable,)
    found = (source.get(name) for source in (settings.environment, settings.host) for name in names)
    return next(filter(None, found), None)


def provider_for(settings: ProgramSettings) -> Provider:
    """The provider under the operator's table: its own CODEX_HOME, where it names one, and its arguments."""
    own = settings.environment.get("CODEX_HOME")
    return provider_of(settings.args, Path(own) / "config.toml" if own else None)


def _file(config: Path | None) -> dict[str, Any]:
    if config is None or not config.is_file():
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        # The program itself will say what is wrong with it; here it only cannot tell us anything.
        return {}


def _overrides(args: Sequence[str]) -> list[dict[str, Any]]:
    texts = [after for flag, after in pairwise(args) if flag in {"-c", "--config"}]
    texts += [arg.removeprefix("--config=") for arg in args if arg.startswith("--config=")]
    return [found for text in texts if (found := _override(text))]


def _override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        return {}
    for candidate in (f"{key} = {value}", f"{key} = {_quoted(value)}"):
        try:
            return tomllib.loads(candidate)
        except tomllib.TOMLDecodeError:
            continue
    return {}


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
