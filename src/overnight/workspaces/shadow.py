"""Our own git view of a workspace: a repository in the run's folder whose work tree is the workspace."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from overnight.domain.text import cut_utf8, plain
from overnight.errors import NotFound, WorkspaceUnreadable
from overnight.ports.workspace import FileChange
from overnight.workspaces import beneath
from overnight.workspaces.git import Git
from overnight.workspaces.raw_diff import Entry, read_entries

MAX_FILES: Final = 10_000
"""Changed files that are reported."""
MAX_BYTES: Final = 32 << 20
"""A bigger file is recorded by its size and time alone."""
MAX_HASHED: Final = 4 << 20
"""Bytes of a changed file whose hash is reported."""
MAX_NESTED: Final = 200
"""Repositories within the workspace that are looked into."""
LISTING_S: Final = 15.0
"""How long git may look for changed files before the workspace's ignore patterns are given up."""
MAX_READ: Final = 256 << 20
"""Bytes of all changed files together that are read for their hashes."""
EMPTY: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""The name of the empty tree."""
_ATTRIBUTES: Final = "* -text !eol -ident -filter -working-tree-encoding !diff !merge"
_EXCLUDED: Final = "/.overnight/"
_TRIES: Final = 20
Apart = dict[bytes, str | None]
"""Files that are recorded by a description, with what was recorded last; None for one that no longer is."""
_MAKING: Final = threading.Lock()


class GitShadow:
    """Implements `ports.workspace.Shadow`. Safe to use from several threads.

    The workspace's own repository is neither read nor written; files in repositories nested in it are files like
    others. Ignored by the workspace's `.gitignore` files means not seen.
    """

    def __init__(self, *, repository: Path, workspace: Path) -> None:
        self._repository = repository
        self._workspace = workspace

    def snapshot(self, label: str) -> str:
        """See `Shadow.snapshot`."""
        self._check_place()
        tree = EMPTY if self._nothing_so_far() else self._taken()
        self._write(f"refs/overnight/{label}", tree)
        return tree

    def _taken(self) -> str:
        with self._new_index() as index:
            tree, apart = self._record(index)
            if index.exists():
                self._remember(index, apart)
                os.replace(index, self._repository / "index")
        return tree

    def resolve(self, label: str) -> str | None:
        """See `Shadow.resolve`."""
        try:
            found = (self._repository / "refs" / "overnight" / label).read_text().strip()
        except OSError:
            return None
        return self._name(found)

    def changes(self, before: str, after: str | None) -> Sequence[FileChange]:
        """See `Shadow.changes`."""
        names = self._name(before), self._after(after)
        if names[0] == names[1]:
            return []
        options = (
            "-r", "--raw", "--numstat", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff", "--no-textconv",
        )  # fmt: skip
        return self._described(read_entries(self._git().run("diff-tree", *options, *names))[:MAX_FILES])

    def patch(self, before: str, after: str | None, path: str, *, limit: int) -> str:
        """See `Shadow.patch`. Empty for a path that leads out of the workspace."""
        if path.startswith("/") or ".." in path.split("/") or "\0" in path:
            return ""
        options = (
            "-p", "--no-color", "--no-renames", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/",
        )  # fmt: skip
        names = self._name(before), self._after(after)
        if names[0] == names[1]:
            return ""
        output = self._git().run("diff-tree", "-r", *options, *names, "--", path, limit=limit + 1)
        text = plain(output.decode("utf-8", "replace"))
        if len(output) <= limit:
            return text
        shown = cut_utf8(text, limit)
        return f"{shown[: shown.rfind(chr(10)) + 1]}[… the rest of this patch is left out …]\n"

    def _after(self, after: str | None) -> str:
        """The name given, or that of the workspace as it is now."""
        if after is not None:
            return self._name(after)
        self._check_place()
        if self._nothing_so_far():
            return EMPTY
        with self._new_index() as index:
            return self._record(index)[0]

    def _check_place(self) -> None:
        """Raise WorkspaceUnreadable when a link has taken the workspace's place: git would follow it anywhere."""
        try:
            with beneath.folder(self._workspace):
                return
        except FileNotFoundError:
            return  # git will find the words for it
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise WorkspaceUnreadable(f"{self._workspace} is no longer a directory, but a link") from None
            raise WorkspaceUnreadable(f"{self._workspace} cannot be opened: {error.strerror}") from None

    def _nothing_so_far(self) -> bool:
        """Whether the workspace is empty and never was otherwise, as scratch folders often are: needs no git."""
        if (self._repository / "index").exists():
            return False
        try:
            return all(name == ".overnight" for name in os.listdir(self._workspace))
        except OSError:
            return False  # git will find the words for it

    @staticmethod
    def _name(name: str) -> str:
        if len(name) != 40 or not all(digit in "0123456789abcdef" for digit in name):
            raise NotFound(f"{name[:80]!r} names no snapshot")
        return name

    def _git(self, index: Path | None = None, tree: Path | None = None) -> Git:
        variables = {"GIT_DIR": str(self._repository), "GIT_WORK_TREE": str(tree or self._workspace)}
        if index is not None:
            variables["GIT_INDEX_FILE"] = str(index)
        return Git(variables=variables, folder=tree or self._workspace)

    @contextlib.contextmanager
    def _new_index(self) -> Iterator[Path]:
        """A copy of the last snapshot's index, so that files which have not changed are not read again."""
        self._make()
        handle, name = tempfile.mkstemp(prefix="index-", dir=self._repository)
        os.close(handle)
        index = Path(name)
        try:
            with contextlib.suppress(FileNotFoundError):
                # With its time: git reads a file again that was changed in the instant in which the index was written.
                shutil.copy2(self._repository / "index", index)
            if index.stat().st_size == 0:
                index.unlink()
            yield index
        finally:
            index.unlink(missing_ok=True)

    def _make(self) -> None:
        """An empty repository, made by hand: git's own way would look for templates."""
        with _MAKING:
            if (self._repository / "info" / "attributes").exists():
                return
            for folder in ("objects/info", "objects/pack", "refs/overnight", "info"):
                (self._repository / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write("HEAD", "ref: refs/heads/none")
            self._write("config", "[core]\n\trepositoryformatversion = 0\n\tbare = false")
            self._write("info/exclude", _EXCLUDED)
            self._write(f"objects/{EMPTY[:2]}/{EMPTY[2:]}", zlib.compress(b"tree 0\0"))
            self._write("info/attributes", _ATTRIBUTES)

    def _write(self, name: str, content: str | bytes) -> None:
        """A file of the repository, whole or not at all."""
        file = self._repository / name
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix="partial-", dir=self._repository)
        with os.fdopen(handle, "wb") as open_file:
            open_file.write(content if isinstance(content, bytes) else f"{content}\n".encode())
        os.replace(partial, file)

    def _record(self, index: Path) -> tuple[str, Apart]:
        """Bring `index` up to the workspace; the name of its tree, and the files at which git does not look."""
        apart = self._apart(index)
        for _ in range(2):
            changed = self._changed(index, apart)
            if not changed and (known := self._known_tree(index)):
                return known, apart
            self._refuse_traps(changed)
            kept, big, gone = self._sorted(changed)
            self._put(index, [], [path for path in kept if path in apart])
            self._update(index, kept)
            self._put(index, big, gone)
            apart |= {path: None for path in (*kept, *gone) if path in apart} | dict(big)
            if not any(self._is_folder(path) for path in (*gone, *kept)):
                break  # else a file has become a folder, into which git looks only once the file is forgotten
            self._drop_links_to_repositories(index)
        tree = self._git(index).run("write-tree").decode().strip()
        self._write("index.tree", f"{_checksum(index)} {tree}")
        return tree, apart

    def _apart(self, index: Path) -> Apart:
        """What `_remember` has kept with this index; for another one's, nothing that it says counts but the paths."""
        try:
            checksum, *fields = (self._repository / "index.apart").read_bytes().split(b"\0")
        except FileNotFoundError:
            return {}
        known = index.exists() and checksum.decode() == _checksum(index)
        pairs = zip(fields[::2], fields[1::2], strict=True)
        return {path: (text.decode() or None) if known else "" for path, text in pairs}

    def _remember(self, index: Path, apart: Apart) -> None:
        if apart:
            fields = [field for path, text in apart.items() for field in (path, (text or "").encode())]
            self._write("index.apart", b"\0".join([_checksum(index).encode(), *fields]))

    def _known_tree(self, index: Path) -> str | None:
        """The tree of an index that has not changed since it was last written as a tree."""
        if not index.exists():
            return EMPTY
        try:
            checksum, _, tree = (self._repository / "index.tree").read_text().strip().partition(" ")
        except FileNotFoundError:
            return None
        return self._name(tree) if checksum == _checksum(index) else None

    def _refuse_traps(self, paths: Iterable[bytes]) -> None:
        """Raise WorkspaceUnreadable for attributes that are a fifo: git would wait for a writer for ever."""
        folders = {b""}
        for path in paths:
            while path := path.rpartition(b"/")[0]:
                folders.add(path)
        for folder in folders:
            trap = os.path.join(os.fsencode(self._workspace), folder, b".gitattributes")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                kind = os.lstat(trap).st_mode
                if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind) or stat.S_ISDIR(kind)):
                    raise WorkspaceUnreadable(
                        f"{os.fsdecode(trap)} is neither a file nor a link", mend="remove it"
                    )

    def _is_folder(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(os.path.join(os.fsencode(self._workspace), path)).st_mode)
        except OSError:
            return False

    def _changed(self, index: Path, apart: Apart) -> list[bytes]:
        listed = self._listed(self._git(index), "--others")
        # By their facts alone; `ls-files --modified` reads what was empty before, however big it has become.
        found = _paths(self._git(index).run("diff-files", "-z", "--name-only", "--ignore-submodules=all"))
        found += [path for path in listed if not path.endswith(b"/")]
        nested = [path for path in listed if path.endswith(b"/")]
        for _ in range(MAX_NESTED):
            if not nested:
                break
            folder = nested.pop()
            tree = self._workspace / os.fsdecode(folder)
            if tree.is_symlink() or not tree.is_dir():
                continue
            inside = self._listed(self._git(self._repository / "no-index", tree), "--others")
            found += [folder + path for path in inside if not path.endswith(b"/")]
            nested += [folder + path for path in inside if path.endswith(b"/")]
        found += [
            path for path, text in apart.items() if text is not None and text != self._described_now(path)
        ]
        return list(dict.fromkeys(found))

    def _described_now(self, path: bytes) -> str | None:
        try:
            return _description(os.lstat(os.path.join(os.fsencode(self._workspace), path)))
        except OSError:
            return None

    def _listed(self, git: Git, *which: str) -> list[bytes]:
        """What git finds. Ignore patterns can be made such that matching never ends: then they count no longer."""
        deaf = self._repository / "ignores-nothing"
        if not deaf.exists():
            try:
                return _paths(git.run("ls-files", "-z", "--exclude-standard", *which, timeout_s=LISTING_S))
            except WorkspaceUnreadable as error:
                if "timeout_s" not in error.extra:
                    raise
                self._write(deaf.name, "")
        return _paths(git.run("ls-files", "-z", f"--exclude={_EXCLUDED}", *which))

    def _sorted(self, paths: list[bytes]) -> tuple[list[bytes], list[tuple[bytes, str]], list[bytes]]:
        """Paths that git may read, those recorded by a description, and those that are gone."""
        kept, big, gone = [], [], []
        for path in paths:
            whole = os.path.join(os.fsencode(self._workspace), path)
            try:
                found = os.lstat(whole)
            except OSError:
                gone.append(path)
                continue
            if stat.S_ISLNK(found.st_mode):
                kept.append(path)
            elif not stat.S_ISREG(found.st_mode):
                gone.append(path)
            elif found.st_size > MAX_BYTES or not os.access(whole, os.R_OK):
                big.append((path, _description(found)))
            else:
                kept.append(path)
        return kept, big, gone

    def _update(self, index: Path, paths: list[bytes]) -> None:
        """Read these files. One that has become unreadable meanwhile is left for the next snapshot."""
        for _ in range(_TRIES):
            if not paths:
                return
            try:
                self._git(index).run(
                    "update-index", "-z", "--add", "--remove", "--stdin", stdin=b"\0".join(paths) + b"\0"
                )
            except WorkspaceUnreadable as error:
                named = error.detail.partition("Unable to process path ")[2]
                left = [path for path in paths if os.fsdecode(path) != named]
                if not named or len(left) == len(paths):
                    raise
                paths = left
            else:
                return
        raise WorkspaceUnreadable("the workspace changes too fast to be compared")

    def _put(self, index: Path, big: list[tuple[bytes, str]], gone: list[bytes]) -> None:
        """Set entries without letting git look at the files, now or later: it would read big ones to the end."""
        lines = [b"0 %b\t%b\0" % (b"0" * 40, path) for path in gone]
        for path, text in big:
            blob = self._git(index).run("hash-object", "-w", "--stdin", "--no-filters", stdin=text.encode())
            lines.append(b"100644 %b\t%b\0" % (blob.strip(), path))
        if lines:
            self._git(index).run("update-index", "-z", "--index-info", stdin=b"".join(lines))
        if big:
            names = b"".join(path + b"\0" for path, _ in big)
            self._git(index).run("update-index", "-z", "--assume-unchanged", "--stdin", stdin=names)

    def _drop_links_to_repositories(self, index: Path) -> None:
        """An entry that stands for a nested repository would have git look into it with that one's configuration."""
        entries = self._git(index).run("ls-files", "-z", "--stage").split(b"\0")
        links = [entry.partition(b"\t")[2] for entry in entries if entry.startswith(b"160000")]
        self._put(index, [], links)

    def _described(self, entries: Sequence[Entry]) -> list[FileChange]:
        contents = self._contents([entry.blob for entry in entries if entry.blob])
        found = []
        for entry in entries:
            size, digest = contents.get(entry.blob, (0, None)) if entry.blob else (0, None)
            change = FileChange(
                path=entry.path, kind=entry.kind, bytes=size, sha256=digest,
                added_lines=entry.added, removed_lines=entry.removed,
            )  # fmt: skip
            found.append(change)
        return found

    def _contents(self, blobs: Sequence[str]) -> dict[str, tuple[int, str | None]]:
        """Size and SHA-256 of each blob; no hash for those that are too big or too many to be read."""
        names = list(dict.fromkeys(blobs))
        if not names:
            return {}
        request = "\n".join(names).encode()
        output = self._git().run("cat-file", "--batch", stdin=request, limit=MAX_READ)
        found: dict[str, tuple[int, str | None]] = {}
        at = 0
        while (end := output.find(b"\n", at)) >= 0:
            name, _type, size = output[at:end].split()
            content = memoryview(output)[end + 1 : end + 1 + int(size)]
            known = len(content) == int(size) <= MAX_HASHED
            found[name.decode()] = int(size), hashlib.sha256(content).hexdigest() if known else None
            at = end + 1 + int(size) + 1
        return found


def _description(found: os.stat_result) -> str:
    return f"{found.st_size} bytes, changed at {found.st_mtime_ns}\n"


def _paths(listed: bytes) -> list[bytes]:
    return listed.split(b"\0")[:-1]


def _checksum(index: Path) -> str:
    """An index ends with a checksum of all that is in it."""
    with index.open("rb") as file:
        file.seek(-20, os.SEEK_END)
        return file.read().hex()
