"""The compose file: two servers and three workers on Postgres and Valkey, whose parts fit each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from tests.deploy.reading import DEPLOY, VARIABLES, misread

from overnight.config.settings import load

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: found for name, found in SERVICES.items() if found["image"] == "overnight:local"}
SERVERS = {name: found for name, found in OURS.items() if found["command"][0] == "up"}
WORKERS = {name: found for name, found in OURS.items() if found["command"][0] == "worker"}


def test_it_is_what_it_says() -> None:
    assert (len(SERVERS), len(WORKERS), set(SERVICES) - set(OURS)) == (2, 3, {"postgres", "valkey"})
    assert [found["command"] for name, found in OURS.items() if name == "database"] == [["db", "upgrade"]]


@pytest.mark.parametrize("name", OURS)
def test_its_commands_and_variables_are_ours(name: str) -> None:
    assert misread(OURS[name]["command"]) == ""
    assert {key for key in OURS[name]["environment"] if key.startswith("OVERNIGHT_")} <= VARIABLES


@pytest.mark.parametrize("name", [*SERVERS, *WORKERS])
def test_each_waits_for_the_schema_and_has_a_data_directory_of_its_own(name: str) -> None:
    found = OURS[name]
    assert found["depends_on"]["database"] == {"condition": "service_completed_successfully"}
    assert SERVICES["database"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert found["restart"] == "unless-stopped"
    assert found["init"] is True
    mounts = dict(volume.split(":")[::-1] for volume in found["volumes"])
    assert mounts == {"/var/lib/overnight": name, "/workspaces": "workspaces"}
    assert found["environment"]["OVERNIGHT_WORKER_SHARED_ROOTS"] == "/workspaces"
    assert set(mounts.values()) <= set(COMPOSE["volumes"])


def test_nothing_listens_beyond_this_machine() -> None:
    ports = [port for found in SERVICES.values() for port in found.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert all("--behind-proxy" in found["command"] for found in SERVERS.values())


def test_secrets_come_from_outside() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    assert asked == {"POSTGRES_PASSWORD", "OVERNIGHT_TOKEN"}
    example = (DEPLOY / "env.example").read_text()
    assert all(f"\n{name}=\n" in example for name in asked)
    assert not re.search(r"(?i)(password|token): *[a-z0-9]", text)


def test_valkey_holds_nothing_that_matters() -> None:
    command = SERVICES["valkey"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--save"] == ""
    assert options["--appendonly"] == "no"
    assert options["--maxmemory-policy"] == "allkeys-lru"
    assert "volumes" not in SERVICES["valkey"]


def substituted(value: object) -> str:
    """As the engine would fill it in, with secrets that look like those of the example."""
    given = {"POSTGRES_PASSWORD": "s3cret", "OVERNIGHT_TOKEN": "ovn_" + "t" * 43}
    return re.sub(r"\$\{(\w+):[-?]([^}]*)\}", lambda m: given.get(m[1], m[2]), str(value))


@pytest.mark.parametrize("name", [*SERVERS, *WORKERS])
def test_the_program_takes_these_settings(name: str, tmp_path: Path) -> None:
    steps = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    image = dict(re.findall(r"([A-Z_]+)=(\S+)", re.findall(r"^ENV (PATH=.*)$", steps, re.MULTILINE)[-1]))
    environment = image | {key: substituted(value) for key, value in OURS[name]["environment"].items()}
    environment = {key: value.replace("/workspaces", str(tmp_path)) for key, value in environment.items()}
    overrides = {"server.listen": "0.0.0.0:4010", "server.behind_proxy": "true"} if name in SERVERS else {}
    settings = load(environment, cwd=tmp_path, overrides=overrides)
    assert settings.postgres
    assert settings.redis_url == "redis://valkey:6379/0"
    assert settings.data_dir == Path("/var/lib/overnight")
