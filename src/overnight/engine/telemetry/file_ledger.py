"""Which file changes of a turn have been reported, so that each is told once however many saw it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Final

from overnight.domain.event import Draft
from overnight.domain.update import FileTouched
from overnight.ports.workspace import FileChange

MOST_EVENTS: Final = 1000
"""File events of one turn; the rest is counted."""


class FileLedger:
    """Pure. `workspace` is its absolute path; `watched` says whether a watcher will see changes by itself."""

    def __init__(self, workspace: str | None, *, watched: bool = False, most: int = MOST_EVENTS) -> None:
        self._root = posixpath.normpath(workspace) if workspace else None
        self._watched = watched
        self._most = most
        self._told: dict[str, str | None] = {}
        """Path: the hash last told; None when it was told as deleted."""
        self._claims: dict[str, str] = {}
        """Path: the hash that the agent claimed; a change that turns out just so is not told twice."""
        self._kinds: dict[str, str] = {}
        """What the backend said about files that the watcher has not looked at yet."""
        self.count = 0
        self.dropped = 0

    def place(self, path: str) -> tuple[str, bool]:
        """`path` relative to the workspace, and whether it is outside of it (then it stays as it was given)."""
        if self._root is None:
            return path, False
        whole = posixpath.normpath(posixpath.join(self._root, path))
        if whole == self._root:
            return ".", False
        if whole.startswith(self._root.rstrip("/") + "/"):
            return whole[len(self._root.rstrip("/")) + 1 :], False
        return path, True

    def touched(self, update: FileTouched) -> list[Draft]:
        """The backend's own report. Changes that a watcher will see are left to it: it knows size and hash."""
        path, outside = self.place(update.path)
        if update.kind == "read":
            return self._tell("file.read", {"path": path, "bytes": None}, outside=outside)
        if update.kind == "deleted":
            return (
                self.deleted(path)
                if not outside
                else self._tell("file.deleted", {"path": path}, outside=True)
            )
        if self._watched and not outside:
            self._kinds[path] = update.kind
            return []
        return self._tell("file.written", _facts(path, update.kind), outside=outside)

    def claimed(self, draft: Draft) -> list[Draft]:
        """The agent's own claim, by a sentinel: told as a claim, and believed by nobody."""
        path, outside = self.place(str(draft.data["path"]))
        digest = draft.data.get("sha256")
        if isinstance(digest, str) and not outside:
            self._claims[path] = digest
        return self._tell(draft.type, {**draft.data, "path": path}, outside=outside)

    def written(self, path: str, kind: str, size: int, sha256: str | None) -> list[Draft]:
        """The watcher has read a changed file (path relative to the workspace)."""
        if self._is_told(path, sha256):
            return []
        self._told[path] = sha256
        kind = self._kinds.pop(path, kind)
        return self._tell("file.written", {**_facts(path, kind), "bytes": size, "sha256": sha256})

    def deleted(self, path: str) -> list[Draft]:
        """A file is gone (path relative to the workspace)."""
        if path in self._told and self._told[path] is None:
            return []
        self._told[path] = None
        return self._tell("file.deleted", {"path": path})

    def settle(self, changes: Iterable[FileChange]) -> list[Draft]:
        """At the turn's end: what the shadow repository found and nobody has told in its last form."""
        drafts: list[Draft] = []
        for change in changes:
            if change.kind == "deleted":
                drafts += self.deleted(change.path)
            elif not self._is_told(change.path, change.sha256):
                self._told[change.path] = change.sha256
                lines = {"added_lines": change.added_lines, "removed_lines": change.removed_lines}
                found = {
                    **_facts(change.path, change.kind),
                    **lines,
                    "bytes": change.bytes,
                    "sha256": change.sha256,
                }
                drafts += self._tell("file.written", found)
        return drafts

    def _is_told(self, path: str, sha256: str | None) -> bool:
        return sha256 is not None and sha256 in {self._told.get(path), self._claims.get(path)}

    def _tell(self, type: str, data: dict[str, object], *, outside: bool = False) -> list[Draft]:
        if self.count >= self._most:
            self.dropped += 1
            return []
        self.count += 1
        return [Draft(type=type, data={**data, "outside": True} if outside else data)]


def _facts(path: str, kind: str) -> dict[str, object]:
    unknown = dict.fromkeys(("bytes", "sha256", "added_lines", "removed_lines"))
    return {"path": path, "kind": kind, **unknown}
