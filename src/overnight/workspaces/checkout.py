"""Clones a git repository for a run. It is a stranger's: nothing in it may run, and nobody may be asked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from overnight.errors import WorkspaceRefused, WorkspaceUnreadable
from overnight.workspaces.git import Git

CLONE_S: Final = 900.0
_SCP: Final = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:(?!/?-)[^\s]+")
_REMOTE: Final = re.compile(r"(https|ssh)://(?![-@])[^\s\x00-\x1f]+")


def check_out(target: Path, url: str, ref: str, *, local: Callable[[str], Path]) -> None:
    """Clone `url` at `ref` into `target`; at once back when it is there. `local` judges paths of this host.

    Raises WorkspaceRefused for a URL, a reference or a repository that cannot be used.
    """
    if target.is_dir():
        return
    source, protocols = _source(url, local)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    git = Git(settings={f"protocol.{name}.allow": "always" for name in protocols}, folder=partial.parent)
    try:
        git.run(
            "clone", "--quiet", "--no-checkout", "--no-local", "--no-recurse-submodules", "--template=",
            "--", source, str(partial), timeout_s=CLONE_S,
        )  # fmt: skip
        _switch(Git(folder=partial), ref)
    except WorkspaceUnreadable as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise WorkspaceRefused(
            f"the repository cannot be checked out: {_without_url(error.detail, url)}",
            mend=error.mend
            or "see that address and ref are right, and that the user of this host's worker may read it without being "
            "asked: a key that ssh finds, or a token in the address",
        ) from None
    os.replace(partial, target)


def _source(url: str, local: Callable[[str], Path]) -> tuple[str, tuple[str, ...]]:
    path = url.removeprefix("file://") if url.startswith("file:///") else url
    if path.startswith("/"):
        return f"file://{local(path)}", ("file",)
    if _REMOTE.fullmatch(url):
        return url, (url.partition(":")[0],)
    if _SCP.fullmatch(url):
        return url, ("ssh",)
    raise WorkspaceRefused(
        "the repository's address is of no known kind",
        mend="use https://…, ssh://…, user@host:path, or an absolute path beneath a configured root",
    )


def _switch(git: Git, ref: str) -> None:
    """Check `ref` out: a branch by its name, anything else detached."""
    if ref == "HEAD":
        git.run("checkout", "--quiet", "--force")
        return
    try:
        git.run(
            "rev-parse", "--quiet", "--verify", "--end-of-options", f"refs/remotes/origin/{ref}^{{commit}}"
        )
    except WorkspaceUnreadable:
        commit = (
            git.run("rev-parse", "--quiet", "--verify", "--end-of-options", f"{ref}^{{commit}}")
            .strip()
            .decode()
        )
        git.run("checkout", "--quiet", "--force", "--detach", commit)
    else:
        git.run("checkout", "--quiet", "--force", "-B", ref, f"refs/remotes/origin/{ref}")


def _without_url(detail: str, url: str) -> str:
    """Git repeats the address in its errors, and an address may carry a password."""
    return re.sub(r"://[^/\s@]*@", "://", detail.replace(url, "the address"))
