"""What of this host a confined agent does not see, and what of that it needs all the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overnight.workspaces.sandbox_view import View, resolved

PRIVATE: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  # hidden and replaced, not written to

_HOMES: Final = ("/home", "/root", "/var/home", "/export/home", "/Users")
_SERVICES: Final = (
    "/run", "/var/run", "/var/lib/containerd", "/var/lib/docker", "/var/lib/incus", "/var/lib/kubelet", "/var/lib/lxd",
    "/var/lib/mysql", "/var/lib/rancher", "/var/snap/lxd", "/var/spool",
)  # fmt: skip
"""Sockets of daemons (whoever can connect to some of them is root), mail, and what waits to be run."""
_ROOTS_OWN: Final = (
    "/var/backups", "/sys/firmware", "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing",
    "/etc/NetworkManager/system-connections", "/etc/gshadow", "/etc/gshadow-", "/etc/krb5.keytab", "/etc/kubernetes",
    "/etc/rancher", "/etc/security/opasswd", "/etc/shadow", "/etc/shadow-", "/etc/ssl/private", "/etc/sudoers",
    "/etc/sudoers.d", "/etc/wireguard",
)  # fmt: skip
"""A server that runs as root would let its agents read these: they stay the owner's own inside the sandbox."""
_NEEDED: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/localtime", "/run/current-system")
"""What may lead into a hidden folder and has to be found: names of hosts, and all programs of NixOS."""

_WHOLE: Final = frozenset({
    ".asdf", ".bun", ".deno", ".dotnet", ".fnm", ".ghcup", ".goenv", ".jenv", ".juliaup", ".linuxbrew", ".mise",
    ".nix-profile", ".nodenv", ".npm-global", ".nvm", ".opencode", ".proto", ".pyenv", ".rbenv", ".rustup", ".rye",
    ".sdkman", ".volta",
})  # fmt: skip
"""Folders of version managers: programs in one part of them run what lies in another."""
_MAX_LINKS: Final = 8
_MAX_TARGETS: Final = 500
_MAX_SHOWN: Final = 300
_MAX_OTHERS: Final = 100
_UNSEEN: Final = frozenset({"hidden", "private"})
_DEEP: Final = frozenset({(".local", "share"), (".local", "state")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Facts of the host and the operator's choices. Made by the composition; nothing here reads the environment."""

    user_home: Path
    secret: tuple[Path, ...] = ()
    """Ours: data directory, runtime folder, configuration, keys. No exception opens them or a part of them."""
    hidden: tuple[Path, ...] = ()
    """What the operator wants hidden besides."""
    readable: tuple[Path, ...] = ()
    """The operator's exceptions."""
    writable: tuple[Path, ...] = ()


def base_view(around: Surroundings) -> View:
    """What every turn begins with."""
    view = View()
    for place in PRIVATE:
        view.set(place, "private")
    home = _home(around)
    for name in (*_HOMES, *_others(home)):
        view.set(Path(name), "hidden")
    for name in _SERVICES:
        view.set(Path(name), "private")
    if os.geteuid() == 0:
        for path in (*map(Path, _ROOTS_OWN), *Path("/etc/ssh").glob("ssh_host_*_key")):
            view.set(path, "private" if path.is_dir() else "hidden")
    if home is not None:
        _show_home(view, home)
    for name in _NEEDED:
        expose(view, Path(name), home)
    return view


def show_programs(view: View, around: Surroundings, programs: Iterable[Path], path_variable: str) -> None:
    """Hide our own; then show programs and the folders of PATH, as far as they are hidden.

    A folder in which a secret of ours lies shows everything but that.
    """
    home = _home(around)
    _hide(view, (*around.hidden, *around.secret))
    for entry in path_variable.split(os.pathsep):
        if entry.startswith("/"):
            for path in _with_targets(Path(entry), home):
                expose(view, path, home)
    for path in programs:
        for place in (path, resolved(path)):
            if place is not None:
                expose(view, _installation(view, place), home)


def make_exceptions(view: View, around: Surroundings) -> None:
    """Show what the operator opens to every agent, but nothing of our own."""
    own = [found for place in around.secret if (found := resolved(place)) is not None]
    for path in _outside(around.readable, own):
        view.set(path, "readable")
    for path in _outside(around.writable, own):
        view.set(path, "device" if path.is_relative_to("/dev") else "writable")


def _outside(paths: Iterable[Path], places: list[Path]) -> Iterator[Path]:
    """Those of `paths` that do not lie in one of `places`."""
    for path in paths:
        found = resolved(path)
        if found is not None and not any(found.is_relative_to(place) for place in places):
            yield found


def _hide(view: View, paths: Iterable[Path]) -> None:
    for path in paths:
        view.set(path, "hidden")


def expose(view: View, path: Path, home: Path | None) -> None:
    """Show `path` read-only if it is hidden: of somebody's home as little as a program can live with."""
    found = resolved(path)
    if found is None:
        return
    if found != path:
        _show_links(view, path, _MAX_LINKS)
    if view.access(found) not in _UNSEEN:
        return
    around = _home_around(found, home)
    if around is not None and found != around:
        found = around.joinpath(*_enough(found.relative_to(around).parts))
    if found != view.root_of(found):
        view.set(found, "readable")


def _show_links(view: View, path: Path, most: int) -> None:
    """Show the links by which a path leads through hidden folders, as links."""
    for place in (path, *path.parents) if most > 0 else ():
        if place.is_symlink() and (holder := resolved(place.parent)) is not None:
            target = os.readlink(place)
            if view.access(holder) in _UNSEEN:
                view.link(holder / place.name, target)
            _show_links(view, holder / target, most - 1)


def _enough(parts: tuple[str, ...]) -> tuple[str, ...]:
    if parts[0] in _WHOLE:
        return parts[:1]
    return parts[:3] if parts[:2] in _DEEP else parts[:2]


def _show_home(view: View, home: Path) -> None:
    """Everything in the user's home whose name does not begin with a dot; links stay links."""
    try:
        entries = list(os.scandir(home))
    except OSError:
        entries = []
    shown = [entry for entry in entries if not entry.name.startswith(".")]
    if len(shown) > _MAX_SHOWN:  # more mounts than are good: then it is the others that are hidden one by one
        _hide(view, (home / entry.name for entry in entries if entry.name.startswith(".")))
        return
    view.set(home, "hidden")
    for entry in shown:
        path = home / entry.name
        if entry.is_symlink():
            view.link(path, os.readlink(path))
        elif entry.is_dir() or entry.is_file():
            view.set(path, "readable")


def _home(around: Surroundings) -> Path | None:
    """The user's home; None where that is no folder that could be hidden."""
    home = resolved(around.user_home)
    return home if home != Path("/") else None


def _home_around(path: Path, home: Path | None) -> Path | None:
    """The home that a path lies in: the user's, or another of this machine, where programs may lie as well."""
    if home is not None and path.is_relative_to(home):
        return home
    for place in map(Path, _HOMES):
        if path != place and path.is_relative_to(place):
            return place if place == Path("/root") else place / path.relative_to(place).parts[0]
    return None


def _others(home: Path | None) -> Iterator[str]:
    """Homes of the people of this machine that lie elsewhere."""
    try:
        with open("/etc/passwd", encoding="utf-8", errors="replace") as file:
            lines = [line.split(":") for line in file]
    except OSError:
        return
    most = _MAX_OTHERS
    for fields in lines:
        if most > 0 and len(fields) == 7 and fields[2].isdigit() and 1000 <= int(fields[2]) < 65_000:
            path = Path(fields[5])
            if len(path.parts) > 2 and path.is_absolute() and (home is None or not home.is_relative_to(path)):
                yield fields[5]
                most -= 1


def _with_targets(folder: Path, home: Path | None) -> Iterator[Path]:
    """A folder of PATH; of one in a home also where its links lead: pipx and uv install so."""
    yield folder
    if _home_around(folder, home) is None:
        return
    try:
        links = [entry.name for entry in os.scandir(folder) if entry.is_symlink()]
    except OSError:
        return
    for name in sorted(links)[:_MAX_TARGETS]:
        beside = "/" not in os.readlink(folder / name)
        if not beside and (target := resolved(folder / name)) is not None:
            yield target


def _installation(view: View, program: Path) -> Path:
    """The folder that a program needs: around a `bin`, else its own; just the file in a place such as /tmp."""
    folder = program.parent.parent if program.parent.name == "bin" else program.parent
    hidden_whole = folder == view.root_of(program) or folder in view.root_of(program).parents
    return program if hidden_whole else folder
