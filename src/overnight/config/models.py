"""The `[models]` table: which language models this server offers, and with whose keys. No request says so, ever."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, cast, get_args
from urllib.parse import urlsplit

from overnight.config.secrets import from_file
from overnight.config.sources import Sources
from overnight.errors import ModelNotFound
from overnight.models.endpoint import KEY_VARIABLES, Endpoint, EndpointKind, ModelSettings

ADDRESS_VARIABLES: Final[Mapping[EndpointKind, str]] = {
    "openai": "OPENAI_BASE_URL",
    "openai-chat": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "google": "GOOGLE_GEMINI_BASE_URL",
    "github-copilot": "GITHUB_COPILOT_BASE_URL",
}
"""Where their addresses are looked for; without, each is reached where everybody reaches it."""

_TABLE: Final = "models.providers"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")
_KEYS: Final = frozenset({"kind", "base_url", "key", "models", "script"})


def models(sources: Sources) -> ModelSettings:
    """Every provider, the configured ones first, with aliases and the default.

    Raises ConfigInvalid; no message holds a key.
    """
    tables = cast("dict[str, object]", sources[_TABLE])
    named = tuple(_one(sources, name, table) for name, table in tables.items())
    rest = (_built_in(sources, kind) for kind in KEY_VARIABLES if kind not in tables)
    found = ModelSettings(
        endpoints=(*named, *rest),
        aliases=_aliases(sources),
        default=cast("str | None", sources["models.default"]),
    )
    _check_names(sources, found)
    return found


def keys(settings: ModelSettings) -> Iterator[str]:
    """What must not be read in any log, event or error."""
    return (endpoint.key for endpoint in settings.endpoints if endpoint.key)


def shown(settings: ModelSettings) -> dict[str, object]:
    """The providers for `config show`, without what is secret."""
    return {endpoint.name: _shown(endpoint) for endpoint in settings.endpoints}


def _shown(endpoint: Endpoint) -> dict[str, object]:
    found: dict[str, object] = {"kind": endpoint.kind, "ready": not endpoint.needs}
    if endpoint.base_url:
        found["base_url"] = endpoint.base_url
    if endpoint.key:
        found["key"] = "***"
    if endpoint.needs:
        found["needs"] = endpoint.needs
    if endpoint.models:
        found["models"] = list(endpoint.models)
    return found


def _built_in(sources: Sources, kind: EndpointKind) -> Endpoint:
    key = _first(sources, KEY_VARIABLES[kind])
    return Endpoint(
        name=kind,
        kind=kind,
        key=key,
        base_url=sources.environment.get(ADDRESS_VARIABLES[kind]) or None,
        needs="" if key else KEY_VARIABLES[kind][0],
    )


def _one(sources: Sources, name: str, table: object) -> Endpoint:
    if not _NAME.fullmatch(name):
        raise _unfit(
            sources, (name,), "has a name of other than letters, digits, dots, dashes and underscores"
        )
    if not isinstance(table, dict):
        raise _unfit(sources, (name,), "must be a table")
    for key in table:
        if key not in _KEYS:
            raise _unfit(sources, (name, key), f"is unknown; known are {', '.join(sorted(_KEYS))}")
    kind = _kind(sources, name, table)
    usual = _built_in(sources, kind) if kind in KEY_VARIABLES else None
    key, needs = _key(sources, name, table)
    if "key" not in table and name == kind and usual is not None:
        key, needs = usual.key, usual.needs
    base_url = _address(sources, name, table)
    if base_url is None and name == kind and usual is not None:
        base_url = usual.base_url
    if base_url is None and name != kind and kind in {"openai", "openai-chat"}:
        raise _unfit(sources, (name,), 'needs base_url, such as "http://127.0.0.1:8000/v1"')
    return Endpoint(
        name=name,
        kind=kind,
        base_url=base_url,
        key=key,
        needs=needs,
        models=_models(sources, name, table),
        script=_script(sources, name, table),
    )


def _kind(sources: Sources, name: str, table: Mapping[str, object]) -> EndpointKind:
    kinds = get_args(EndpointKind)
    kind = table.get("kind", name if name in kinds else None)
    if kind not in kinds:
        raise _unfit(sources, (name, "kind"), f"must be one of {', '.join(kinds)}")
    if name in kinds and kind != name:
        raise _unfit(sources, (name, "kind"), "cannot be another for this name; choose another name")
    return cast("EndpointKind", kind)


def _key(sources: Sources, name: str, table: Mapping[str, object]) -> tuple[str | None, str]:
    """The key, and what is missing when it should be there and is not."""
    match table.get("key"):
        case None:
            return None, ""
        case {"env": str(variable), **rest} if not rest:
            value = sources.environment.get(variable)
            return value or None, "" if value else variable
        case {"file": str(path), **rest} if not rest:
            return from_file(sources, _TABLE, (name, "key"), Path(path).expanduser()), ""
        case _:
            wanted = 'must be { env = "VARIABLE" } or { file = "/absolute/path" }'
            raise _unfit(sources, (name, "key"), wanted)


def _address(sources: Sources, name: str, table: Mapping[str, object]) -> str | None:
    address = table.get("base_url")
    if address is None:
        return None
    parts = urlsplit(address) if isinstance(address, str) else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _unfit(sources, (name, "base_url"), "must be an address that begins with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise _unfit(sources, (name, "base_url"), "must not hold a password; give a key instead")
    return cast("str", address).rstrip("/")


def _models(sources: Sources, name: str, table: Mapping[str, object]) -> tuple[str, ...]:
    listed = table.get("models", [])
    if not isinstance(listed, list) or not all(isinstance(item, str) and item for item in listed):
        raise _unfit(sources, (name, "models"), "must be a list of the provider's names for its models")
    return tuple(listed)


def _script(sources: Sources, name: str, table: Mapping[str, object]) -> Path | None:
    script = table.get("script")
    if script is None:
        return None
    if not isinstance(script, str) or not Path(script).expanduser().is_absolute():
        raise _unfit(sources, (name, "script"), "must be the absolute path of a JSON file")
    return Path(script).expanduser()


def _aliases(sources: Sources) -> dict[str, str]:
    table = cast("dict[str, object]", sources["models.aliases"])
    for alias, target in table.items():
        if not _NAME.fullmatch(alias) or not isinstance(target, str):
            raise sources.in_table("models.aliases", (alias,), 'must be NAME = "PROVIDER:NAME"')
    return {alias: str(target) for alias, target in table.items()}


def _check_names(sources: Sources, found: ModelSettings) -> None:
    """Every alias and the default mean something; an alias of an alias does not."""
    if not found.aliases and not found.default:
        return
    from overnight.models.catalog import Catalog  # noqa: PLC0415 -- most workers never need it, and it weighs 0.4 MiB

    full = Catalog(ModelSettings(endpoints=found.endpoints))
    for alias, target in found.aliases.items():
        try:
            full.find(target)
        except ModelNotFound as error:
            raise sources.in_table("models.aliases", (alias,), f"names no model: {error.detail}") from None
    try:
        if found.default:
            Catalog(found).find(found.default)
    except ModelNotFound as error:
        raise sources.refuse("models.default", f"names no model: {error.detail}") from None


def _first(sources: Sources, variables: tuple[str, ...]) -> str | None:
    return next((value for name in variables if (value := sources.environment.get(name))), None)


def _unfit(sources: Sources, path: tuple[str, ...], wanted: str) -> Exception:
    return sources.in_table(_TABLE, path, wanted)
