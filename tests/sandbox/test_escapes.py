"""What a hostile agent finds: nothing inside the sandbox, and plenty without it, so that this can fail."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from tests.sandbox.estate import Estate, estate, hostile

Found = dict[str, object]

ATTEMPTS = tuple(
    line.partition("def ")[2].partition("(")[0]
    for before, line in zip(
        Path(__file__).with_name("hostile.py").read_text().splitlines(),
        Path(__file__).with_name("hostile.py").read_text().splitlines()[1:],
        strict=False,
    )
    if before == "@attempt"
)
EVEN_WITHOUT = {
    "the_database", "the_database_upwards", "the_database_by_a_link", "the_keeper_key", "the_keepers_files",
    "the_keepers_socket", "another_home", "another_run", "a_listing_of_the_data", "server_json", "the_configuration",
    "the_users_dot_files", "temporary_files_of_others", "processes_of_others", "the_database_through_proc",
    "tokens_in_the_environment_of_others", "signals_to_others", "a_file_outside", "a_file_outside_by_hard_link",
    "a_file_outside_by_symlink", "hooks", "git_configuration", "another_git_folder", "settings_of_agents",
    "privileges", "the_hosts_name",
}  # fmt: skip
"""What an agent without a sandbox finds, whoever runs the tests."""


async def attack(place: Estate, level: str) -> Found:
    start = place.start_of("run_hostile", sandbox=level)
    told = await place.tell(hostile(place, start), start)
    assert told.lines, (told.errors, told.ended)
    found = json.loads(told.last)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def inside() -> Iterator[tuple[Found, Estate]]:
    with estate() as place:
        yield anyio.run(attack, place, "workspace_write"), place


@pytest.mark.parametrize("name", ATTEMPTS)
def test_inside_the_sandbox_there_is_nothing_to_find(inside: tuple[Found, Estate], name: str) -> None:
    assert not inside[0][name]


def test_nothing_outside_has_changed(inside: tuple[Found, Estate]) -> None:
    _, place = inside
    assert place.server.poll() is None
    assert (place.root / "public/notes.txt").read_text() == "known to all"
    assert sorted(path.name for path in (place.root / "public").iterdir()) == ["notes.txt"]
    for folder in ("/tmp", "/dev/shm", "/var/tmp"):
        assert not (Path(folder) / place.mark).exists()
    workspace = place.folders("run_hostile")[0]
    config = (workspace / ".git/config").read_text()
    assert "evil" not in config + (workspace / ".git/modules/sub/config").read_text()
    assert list((workspace / ".git/hooks").iterdir()) == []
    assert (workspace / ".claude/settings.json").read_text() == "{}"


def test_nothing_of_ours_listens_on_an_abstract_socket(inside: tuple[Found, Estate]) -> None:
    """Those are shared with the network, and no mount hides them."""
    names = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if "@" in line]
    assert [name for name in names if "overnight" in name or "ovn" in name] == []


def test_without_the_sandbox_the_same_agent_finds_everything() -> None:
    with estate() as place:
        found = anyio.run(attack, place, "full_access")
    missed = {name for name in EVEN_WITHOUT if not found[name]}
    assert missed == set()
    if os.geteuid() == 0:
        as_root = (
            "the_keepers_socket",
            "mounts",
            "memory_of_others",
            "kernel_settings",
            "system_files",
            "devices",
        )
        assert [name for name in as_root if not found[name]] == []
