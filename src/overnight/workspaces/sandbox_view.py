"""Which paths a confined process sees, and how: the most specific rule about a path counts.

A view begins with the whole file system, read-only. Rules are about resolved paths, whatever order they come in;
`arguments` puts them down parents first, as the mounts have to be made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

Access = Literal["hidden", "private", "readable", "writable", "device"]
"""`hidden` is an empty read-only folder or an unreadable file, `private` an empty folder that vanishes at the end."""

_NOTHING: Final = "/dev/null"


class View:
    """Rules for paths. A rule about a path that does not exist is dropped."""

    def __init__(self) -> None:
        self._rules: dict[Path, Access] = {}
        self._links: dict[Path, str] = {}
        self._pinned: set[Path] = set()

    def copy(self) -> View:
        """Another one with the same rules."""
        made = View()
        made._rules, made._links, made._pinned = dict(self._rules), dict(self._links), set(self._pinned)
        return made

    def give(self, path: Path, access: Access) -> None:
        """As `set`, and what was shown of it for its own sake is part of it from now on; what is hidden stays so."""
        found = resolved(path)
        if found is None:
            return
        for place in [place for place in self._rules if found in place.parents]:
            if self._rules[place] == "readable":
                del self._rules[place]
        for place in [place for place in self._links if found in place.parents]:
            del self._links[place]
        self.set(found, access)

    def set(self, path: Path, access: Access) -> None:
        """Give `path` and everything beneath it that access, unless a rule says otherwise about a part of it."""
        found = resolved(path)
        if found is not None and found != Path("/"):
            self._rules[found] = access

    def keep(self, path: Path, access: Access) -> None:
        """As `set`, and a mount of its own, so that `path` can neither be removed, renamed nor replaced.

        The last part of the path must be no link.
        """
        if not path.is_symlink() and path.exists():
            self._rules[path] = access
            self._pinned.add(path)

    def kept(self) -> list[Path]:
        """What was given to `keep`."""
        return sorted(self._pinned)

    def link(self, path: Path, target: str) -> None:
        """Show a link where everything around it is hidden."""
        self._links[path] = target

    def access(self, path: Path) -> Access:
        """What holds for a resolved path."""
        return next(
            (self._rules[place] for place in (path, *path.parents) if place in self._rules), "readable"
        )

    def around(self, path: Path) -> Access:
        """What holds for the folder in which a resolved path lies."""
        return "readable" if path == path.parent else self.access(path.parent)

    def root_of(self, path: Path) -> Path:
        """The place whose rule holds for a resolved path; `/` when there is none."""
        return next((place for place in (path, *path.parents) if place in self._rules), Path("/"))

    def arguments(self) -> Iterator[str]:
        """The mounts, as arguments of bubblewrap."""
        shut: list[str] = []
        for path in sorted({*self._rules, *self._links}, key=lambda path: len(path.parts)):
            if path in self._links:
                if self.access(path.parent) in {"hidden", "private"}:
                    yield from ("--symlink", self._links[path], str(path))
            elif path in self._pinned or self._shows(path):
                yield from _mount(path, self._rules[path], shut)
        for name in shut:
            yield from ("--remount-ro", name)

    def _shows(self, path: Path) -> bool:
        """Whether the rule about `path` changes anything. What lies in an empty folder is hidden already."""
        access, around = self._rules[path], self.around(path)
        return access != around and not (access == "hidden" and around == "private")


def resolved(path: Path) -> Path | None:
    """`path` with every link followed; None when nothing is there, or it cannot be reached."""
    try:
        return Path(os.path.realpath(path, strict=True))
    except (OSError, ValueError):
        return None


def _mount(path: Path, access: Access, shut: list[str]) -> Iterator[str]:
    name = str(path)
    match access:
        case "readable":
            yield from ("--ro-bind", name, name)
        case "writable":
            yield from ("--bind", name, name)
        case "device":
            yield from ("--dev-bind", name, name)
        case "private":
            yield from ("--tmpfs", name)
        case "hidden" if os.path.isdir(name):
            yield from ("--tmpfs", name)
            shut.append(name)
        case "hidden":
            yield from ("--ro-bind", _NOTHING, name)
