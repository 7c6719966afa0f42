"""Our own git view of a workspace: complete, and deaf to whatever the workspace says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.errors import NotFound, WorkspaceUnreadable
from overnight.ports.workspace import FileChange
from overnight.workspaces import shadow as module
from overnight.workspaces.shadow import GitShadow


def _git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def _kinds(changes: object) -> dict[str, str]:
    assert isinstance(changes, list)
    return {change.path: change.kind for change in changes}


def test_changes_between_snapshots_and_now(shadow: GitShadow, work: Path) -> None:
    (work / "kept.txt").write_text("same\n")
    (work / "edited.txt").write_text("a\nb\nc\n")
    (work / "gone.txt").write_text("x\n")
    base = shadow.snapshot("base")
    (work / "edited.txt").write_text("a\nB\nc\nd\n")
    (work / "gone.txt").unlink()
    (work / "sub").mkdir()
    (work / "sub" / "näw file.txt").write_text("new\n")
    now = list(shadow.changes(base, None))
    assert now == [
        FileChange(
            path="edited.txt", kind="modified", bytes=8, sha256=hashlib.sha256(b"a\nB\nc\nd\n").hexdigest(),
            added_lines=2, removed_lines=1,
        ),
        FileChange(path="gone.txt", kind="deleted", removed_lines=1),
        FileChange(
            path="sub/näw file.txt", kind="created", bytes=4, sha256=hashlib.sha256(b"new\n").hexdigest(),
            added_lines=1,
        ),
    ]  # fmt: skip
    turn = shadow.snapshot("turn-1")
    assert list(shadow.changes(base, turn)) == now
    assert list(shadow.changes(turn, None)) == []
    assert shadow.resolve("base") == base
    assert shadow.resolve("turn-1") == turn
    assert shadow.resolve("turn-2") is None


def test_a_change_right_after_a_snapshot_is_seen_also_when_size_stays(shadow: GitShadow, work: Path) -> None:
    for number in range(10):
        (work / "f").write_text(f"{number:04}")
        name = shadow.snapshot("turn-1")
        (work / "f").write_text(f"{number + 1:04}")
        assert [change.path for change in shadow.changes(name, None)] == ["f"]


def test_a_patch_of_one_file_is_cut_and_readable(shadow: GitShadow, work: Path) -> None:
    base = shadow.snapshot("base")
    (work / "a.txt").write_text("one\ntwo \x1b[31m\u202e\n")
    (work / "*.txt").write_text("star\n")
    whole = shadow.patch(base, None, "a.txt", limit=10_000)
    assert "+two \n" in whole
    assert "star" not in whole
    assert "+star" in shadow.patch(base, None, "*.txt", limit=10_000)
    cut = shadow.patch(base, None, "a.txt", limit=60)
    assert len(cut.encode()) < 140
    assert cut.endswith("[… the rest of this patch is left out …]\n")
    assert shadow.patch(base, None, "none.txt", limit=100) == ""
    assert shadow.patch(base, None, "../../etc/passwd", limit=100) == ""


@pytest.mark.parametrize("name", ["HEAD", "--output=/tmp/x", "", "0" * 39, "refs/overnight/base"])
def test_only_names_of_snapshots_are_taken(shadow: GitShadow, name: str) -> None:
    base = shadow.snapshot("base")
    with pytest.raises(NotFound):
        shadow.changes(name, None)
    with pytest.raises(NotFound):
        shadow.patch(base, name, "x", limit=10)


def test_the_users_own_repository_is_untouched_and_its_ignored_files_are_not_seen(
    shadow: GitShadow, work: Path
) -> None:
    _git(work, "init", "-q")
    (work / ".gitignore").write_text("build/\n*.log\n")
    (work / "tracked").write_text("1")
    _git(work, "add", ".")
    _git(work, "commit", "-qm", "one")
    before = {p: p.stat().st_mtime_ns for p in (work / ".git").rglob("*")}
    base = shadow.snapshot("base")
    for path in ("build/out", "x.log", ".overnight/stop", ".git/anything", "tracked", "untracked"):
        (work / path).parent.mkdir(exist_ok=True)
        (work / path).write_text("changed")
    assert _kinds(shadow.changes(base, None)) == {"tracked": "modified", "untracked": "created"}
    (work / ".git" / "anything").unlink()
    after = {p: p.stat().st_mtime_ns for p in (work / ".git").rglob("*")}
    assert {p: t for p, t in after.items() if p.name != ".git"} == before


def test_files_in_nested_repositories_are_files_like_others(shadow: GitShadow, work: Path) -> None:
    (work / "plain").write_text("x")
    base = shadow.snapshot("base")
    inner = work / "vendor" / "inner"
    inner.mkdir(parents=True)
    _git(inner, "init", "-q")
    (inner / "a").write_text("1")
    _git(inner, "add", ".")
    _git(inner, "commit", "-qm", "one")
    deep = inner / "deep"
    deep.mkdir()
    _git(deep, "init", "-q")
    (deep / "b").write_text("2")
    assert _kinds(shadow.changes(base, None)) == {
        "vendor/inner/a": "created",
        "vendor/inner/deep/b": "created",
    }
    turn = shadow.snapshot("turn-1")
    (inner / "a").write_text("changed")
    (inner / "c").write_text("3")
    (deep / "b").unlink()
    assert _kinds(shadow.changes(turn, None)) == {
        "vendor/inner/a": "modified", "vendor/inner/c": "created", "vendor/inner/deep/b": "deleted",
    }  # fmt: skip
    (work / "plain").unlink()
    (work / "plain").mkdir()
    _git(work / "plain", "init", "-q")
    (work / "plain" / "d").write_text("4")
    _git(work / "plain", "add", ".")
    _git(work / "plain", "commit", "-qm", "one")
    found = _kinds(shadow.changes(turn, None))
    assert found["plain"] == "deleted"
    assert found["plain/d"] == "created"


def test_nothing_of_a_hostile_workspace_runs(
    shadow: GitShadow, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    evil = f"touch {canary}"
    hostile_home = tmp_path / "home"
    hostile_home.mkdir()
    programs = ("core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.askPass", "diff.external",
                "filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv",
                "diff.evil.command", "merge.evil.driver", "gpg.program", "credential.helper", "core.gitProxy",
                "core.alternateRefsCommand", "interactive.diffFilter", "trailer.x.command")  # fmt: skip
    lines = "".join(_setting(name, evil) for name in programs)
    (hostile_home / ".gitconfig").write_text(lines)
    monkeypatch.setenv("HOME", str(hostile_home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(hostile_home / ".gitconfig"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", evil)
    monkeypatch.setenv("GIT_DIR", str(work / ".git"))
    for folder in (work, work / "sub"):
        folder.mkdir(exist_ok=True)
        env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True, env=env)
        (folder / ".git" / "config").write_text(lines + f"[include]\n\tpath = {hostile_home}/.gitconfig\n")
        hooks = folder / ".git" / "hooks"
        hooks.mkdir(exist_ok=True)
        for name in (
            "post-index-change",
            "reference-transaction",
            "fsmonitor-watchman",
            "pre-commit",
            "post-checkout",
        ):
            (hooks / name).write_text(f"#!/bin/sh\n{evil}\n")
            (hooks / name).chmod(0o755)
    (work / ".gitattributes").write_text(
        "* filter=evil diff=evil merge=evil text=auto ident working-tree-encoding=UTF-16\n[attr]x filter=evil\n"
    )
    (work / ".gitmodules").write_text(
        '[submodule "sub"]\n\tpath = sub\n\turl = ext::sh -c touch\n\tupdate = !touch x\n'
    )
    (work / ".gitconfig").write_text(lines)
    (work / "a.txt").write_text("$Id$ one\r\n")
    (work / "sub" / "b.txt").write_text("two\n")
    base = shadow.snapshot("base")
    (work / "a.txt").write_text("$Id$ three\r\n")
    (work / "sub" / "b.txt").write_text("four\n")
    found = {change.path: change for change in shadow.changes(base, None)}
    assert set(found) == {"a.txt", "sub/b.txt"}
    assert found["a.txt"].sha256 == hashlib.sha256(b"$Id$ three\r\n").hexdigest()
    assert (found["a.txt"].added_lines, found["a.txt"].removed_lines) == (1, 1)
    assert "+four" in shadow.patch(base, None, "sub/b.txt", limit=1000)
    shadow.snapshot("turn-1")
    assert not canary.exists()


def _setting(name: str, value: str) -> str:
    section, _, key = name.rpartition(".")
    head, _, sub = section.partition(".")
    return f'[{head} "{sub}"]\n\t{key} = {value}\n' if sub else f"[{head}]\n\t{key} = {value}\n"


def test_the_canary_would_sing(work: Path, tmp_path: Path) -> None:
    """The attack above works on plain git: otherwise the test above would prove nothing."""
    canary = tmp_path / "canary"
    _git(work, "init", "-q")
    (work / ".git" / "config").write_text(_setting("core.fsmonitor", f"touch {canary}; false"))
    subprocess.run(["git", "status"], cwd=work, check=False, capture_output=True)
    assert canary.exists()


def test_links_are_recorded_as_links_and_odd_files_are_left_out(
    shadow: GitShadow, work: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("top secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("secret")
    (work / "file").write_text("x")
    base = shadow.snapshot("base")
    (work / "link").symlink_to(tmp_path / "secret")
    (work / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(work / "fifo")
    (work / "file").unlink()
    os.mkfifo(work / "file")
    assert _kinds(shadow.changes(base, None)) == {"file": "deleted", "folder": "created", "link": "created"}
    assert "top secret" not in shadow.patch(base, None, "link", limit=1000)


def test_big_and_unreadable_files_are_noticed_without_being_kept(
    shadow: GitShadow, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    (work / "big").write_bytes(b"x" * 5000)
    base = shadow.snapshot("base")
    assert list(shadow.changes(base, None)) == []
    (work / "big").write_bytes(b"y" * 6000)
    assert _kinds(shadow.changes(base, None)) == {"big": "modified"}


def test_ignore_patterns_that_never_end_are_given_up(
    shadow: GitShadow, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTING_S", 0.5)
    (work / ".gitignore").write_text("*a" * 30 + "b\nbuild/\n")
    (work / ("a" * 200)).write_text("x")
    (work / ".overnight").mkdir()
    (work / ".overnight" / "stop").write_text("x")
    base = shadow.snapshot("base")
    (work / "new").write_text("x")
    monkeypatch.setattr(module, "LISTING_S", 1000.0)  # it is known by now that there is nothing to wait for
    assert _kinds(shadow.changes(base, None)) == {"new": "created"}


def test_a_workspace_that_is_gone_and_a_missing_git_are_told_apart(
    shadow: GitShadow, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shadow.snapshot("base")
    work.rename(work.with_name("moved"))
    with pytest.raises(WorkspaceUnreadable, match="gone"):
        shadow.changes(base, None)
    work.mkdir()
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shadow.changes(base, None) == [], "an empty folder needs no git"
    (work / "file").write_text("x")
    with pytest.raises(WorkspaceUnreadable, match="cannot be started"):
        shadow.changes(base, None)


def test_fifos_in_place_of_gits_own_files_stop_nothing(
    shadow: GitShadow, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTING_S", 0.5)
    base = shadow.snapshot("base")
    (work / "sub").mkdir()
    (work / "sub" / "x").write_text("x")
    os.mkfifo(work / ".gitignore")
    assert _kinds(shadow.changes(base, None)) == {"sub/x": "created"}
    os.mkfifo(work / "sub" / ".gitattributes")
    with pytest.raises(WorkspaceUnreadable, match="gitattributes"):
        shadow.changes(base, None)


def test_names_of_every_kind(shadow: GitShadow, work: Path) -> None:
    base = shadow.snapshot("base")
    names = [
        "-rf",
        "a\tb",
        "new\nline",
        "ü",
        "sp ace",
        "git~1",
        ":!x",
        "*",
        "a\\b",
        '"quoted"',
        ".gitkeep",
    ]
    for name in names:
        (work / name).write_text("x")
    assert set(_kinds(shadow.changes(base, None))) == set(names)


def test_snapshots_and_views_at_once(shadow: GitShadow, work: Path) -> None:
    base = shadow.snapshot("base")
    failures: list[BaseException] = []

    def look() -> None:
        try:
            for _ in range(4):
                assert len(list(shadow.changes(base, None))) <= 40
        except BaseException as error:  # noqa: BLE001  carried to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(4):
        (work / f"f{number}").write_text("x")
        shadow.snapshot(f"turn-{number}")
    for thread in threads:
        thread.join()
    assert not failures
    assert {p.name for p in shadow._repository.glob("*-*")} == set()


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "d/x", "d/y"]), st.one_of(st.none(), st.binary(max_size=40))),
        max_size=6,
    )
)
def test_the_view_agrees_with_the_files(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[str, bytes | None]]
) -> None:
    base_dir = tmp_path_factory.mktemp("agree")
    work = base_dir / "w"
    (work / "d").mkdir(parents=True)
    (work / "a").write_bytes(b"start")
    shadow = GitShadow(repository=base_dir / "s.git", workspace=work)
    base = shadow.snapshot("base")
    before = {"a": b"start"}
    for path, content in edits:
        (work / path).unlink(missing_ok=True) if content is None else (work / path).write_bytes(content)
    after = {str(p.relative_to(work)): p.read_bytes() for p in work.rglob("*") if p.is_file()}
    expected = {p: hashlib.sha256(c).hexdigest() for p, c in after.items() if before.get(p) != c}
    expected |= {p: None for p in before if p not in after}  # type: ignore[misc]
    assert {c.path: c.sha256 for c in shadow.changes(base, None)} == expected
