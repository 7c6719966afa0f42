"""Which directories may be used, and reading beneath them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import WorkspaceRefused
from overnight.workspaces import beneath
from overnight.workspaces.directories import DirectoryWorkspaces

Make = Callable[..., DirectoryWorkspaces]


@pytest.fixture
def workspaces(tmp_path: Path) -> DirectoryWorkspaces:
    for name in ("root/project/deep", "data/runs", "home/.config/tool", "home/work", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    return DirectoryWorkspaces(
        roots=[tmp_path / "root", tmp_path / "home"], data_dir=tmp_path / "data",
        run_folder=lambda run: tmp_path / "data" / "runs" / run, home=tmp_path / "home",
    )  # fmt: skip


def test_a_directory_beneath_a_root_is_resolved_and_identified(
    workspaces: DirectoryWorkspaces, tmp_path: Path
) -> None:
    (tmp_path / "root" / "link").symlink_to(tmp_path / "root" / "project")
    direct = workspaces.check(str(tmp_path / "root" / "project"))
    linked = workspaces.check(str(tmp_path / "root" / "link" / "." / "deep" / ".."))
    assert direct == linked
    found = (tmp_path / "root" / "project").stat()
    assert direct.chain[0] == f"{found.st_dev}:{found.st_ino}"
    assert workspaces.check(str(tmp_path / "root" / "project" / "deep")).chain[1:] == direct.chain


def test_a_root_itself_may_be_used_but_not_the_home(workspaces: DirectoryWorkspaces, tmp_path: Path) -> None:
    assert workspaces.check(str(tmp_path / "root")).path == (tmp_path / "root").resolve()
    assert workspaces.check(str(tmp_path / "home" / "work")).path.name == "work"
    for name in ("home", "home/.config", "home/.config/tool"):
        with pytest.raises(WorkspaceRefused):
            workspaces.check(str(tmp_path / name))


@pytest.mark.parametrize(
    "path",
    ["", "relative", "~/work", "{}/elsewhere", "{}/root/../elsewhere", "{}/root/missing", "{}/root/file", "{}/data",
     "{}/data/runs", "{}", "/", "/proc/self/root", "{}/root/out", "{}/root/loop", "{}/root\0x", "{}/rootless",
     "/dev/null"],
)  # fmt: skip
def test_everything_else_is_refused_with_a_mend(
    workspaces: DirectoryWorkspaces, tmp_path: Path, path: str
) -> None:
    (tmp_path / "root" / "file").write_text("x")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "loop").symlink_to("loop")
    (tmp_path / "rootless").mkdir()
    with pytest.raises(WorkspaceRefused) as refused:
        workspaces.check(path.format(tmp_path))
    assert refused.value.mend


def test_a_root_within_a_dot_directory_opens_it(tmp_path: Path) -> None:
    (tmp_path / ".cache" / "work" / "a").mkdir(parents=True)
    found = DirectoryWorkspaces(
        roots=[tmp_path / ".cache" / "work"], data_dir=tmp_path / "data", run_folder=lambda run: tmp_path / run,
        home=tmp_path,
    )  # fmt: skip
    assert found.check(str(tmp_path / ".cache" / "work" / "a")).path.name == "a"


def test_scratch_is_the_runs_own_and_the_same_again(workspaces: DirectoryWorkspaces) -> None:
    first = workspaces.scratch("run_1")
    assert first == workspaces.scratch("run_1") != workspaces.scratch("run_2")
    assert first.path.stat().st_mode & 0o777 == 0o700


@pytest.fixture(params=[True, False], ids=["openat2", "walk"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not beneath.has_openat2():
        pytest.skip("this kernel has no openat2")
    monkeypatch.setattr(beneath, "has_openat2", lambda: request.param)


@pytest.mark.usefixtures("system")
class TestReading:
    def test_the_end_of_a_file_and_its_size(self, workspaces: DirectoryWorkspaces, tmp_path: Path) -> None:
        root = tmp_path / "root"
        (root / "log.md").write_text("one\ntwö\n")
        assert workspaces.read_text(root, "log.md", limit=100) == ("one\ntwö\n", 9)
        assert workspaces.read_text(root, "./log.md", limit=3) == ("ö\n", 9)
        assert workspaces.read_text(root, "log.md", limit=2) == ("\n", 9)
        assert workspaces.read_text(root, "log.md", limit=0) == ("", 9)
        assert workspaces.read_text(root, "project/none", limit=9) is None
        assert workspaces.read_text(root / "gone", "log.md", limit=9) is None

    def test_links_fifos_and_ways_out_are_not_there(
        self, workspaces: DirectoryWorkspaces, tmp_path: Path
    ) -> None:
        root = tmp_path / "root"
        secret = tmp_path / "elsewhere" / "secret"
        secret.write_text("secret")
        (root / "link").symlink_to(secret)
        (root / "folder").symlink_to(tmp_path / "elsewhere")
        (root / "inner").symlink_to("project")
        (root / "proc").symlink_to("/proc/self/root")
        os.mkfifo(root / "fifo")
        for path in ("link", "folder/secret", "inner/x", f"proc{secret}", "fifo", "project", "../elsewhere/secret",
                     "project/../../elsewhere/secret", str(secret), "", ".", "a\0b", "x" * 5000):  # fmt: skip
            assert workspaces.read_text(root, path, limit=100) is None, path

    def test_creating_never_overwrites_nor_follows(
        self, workspaces: DirectoryWorkspaces, tmp_path: Path
    ) -> None:
        root = tmp_path / "root"
        assert workspaces.create_text(root, ".overnight/notes/log.md", "hello")
        assert not workspaces.create_text(root, ".overnight/notes/log.md", "again")
        assert (root / ".overnight" / "notes" / "log.md").read_text() == "hello"
        (root / "out").symlink_to(tmp_path / "elsewhere")
        (root / "dangling").symlink_to(tmp_path / "elsewhere" / "new")
        for path in ("out/new", "dangling", "../new", "/tmp/new-file-of-overnight", ""):
            assert not workspaces.create_text(root, path, "x")
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_removing_takes_regular_files_only(self, workspaces: DirectoryWorkspaces, tmp_path: Path) -> None:
        root = tmp_path / "root"
        (root / "stop").write_text("")
        target = tmp_path / "elsewhere" / "kept"
        target.write_text("")
        (root / "link").symlink_to(target)
        (root / "out").symlink_to(tmp_path / "elsewhere")
        assert workspaces.remove_file(root, "stop")
        for path in ("stop", "link", "out/kept", "../elsewhere/kept", "project"):
            assert not workspaces.remove_file(root, path)
        assert target.exists()
        assert (root / "link").is_symlink()


@given(st.lists(st.sampled_from(["..", ".", "a", "", "link", "/", "b\0", "up"]), max_size=6))
def test_no_path_reaches_the_outside(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    base = tmp_path_factory.getbasetemp() / "beneath"
    (base / "in" / "a").mkdir(parents=True, exist_ok=True)
    (base / "secret").write_text("secret")
    for name, to in (("link", ".."), ("a/up", "../..")):
        if not (base / "in" / name).is_symlink():
            (base / "in" / name).symlink_to(to)
    with beneath.folder(base / "in") as root:
        assert beneath.read_end(root, "/".join([*names, "secret"]), 100) is None


def _git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class TestCheckout:
    def test_branch_tag_and_commit(self, workspaces: DirectoryWorkspaces, tmp_path: Path) -> None:
        source = tmp_path / "root" / "project"
        _git(source, "init", "-q")
        (source / "file").write_text("one")
        _git(source, "add", ".")
        _git(source, "commit", "-qm", "one")
        first = _git(source, "rev-parse", "HEAD")
        _git(source, "tag", "v1")
        _git(source, "checkout", "-qb", "side")
        (source / "file").write_text("two")
        _git(source, "commit", "-qam", "two")
        for number, (ref, text) in enumerate(
            [("HEAD", "two"), ("main", "one"), ("v1", "one"), (first, "one")]
        ):
            found = workspaces.checkout(f"run_{number}", f"file://{source}", ref)
            assert (found.path / "file").read_text() == text
            (found.path / "file").write_text("changed")
            assert workspaces.checkout(f"run_{number}", str(source), ref) == found
            here = str(found.path)
            assert workspaces.checkout(f"run_{number}", str(source), ref, last=here) == found
            assert (found.path / "file").read_text() == "changed"
            workspaces.checkout(f"run_{number}", str(source), ref, last="/elsewhere/checkout")
            assert (found.path / "file").read_text() == text
        with pytest.raises(WorkspaceRefused, match="cannot be checked out"):
            workspaces.checkout("run_9", str(source), "no-such-ref")

    def test_nothing_of_the_repository_runs(self, workspaces: DirectoryWorkspaces, tmp_path: Path) -> None:
        source = tmp_path / "root" / "project"
        canary = tmp_path / "canary"
        _git(source, "init", "-q")
        (source / ".gitattributes").write_text("* filter=evil diff=evil\n")
        (source / "file").write_text("one")
        _git(source, "add", ".")
        _git(source, "commit", "-qm", "one")
        for name in ("filter.evil.smudge", "filter.evil.process", "core.fsmonitor", "uploadpack.packObjectsHook",
                     "core.sshCommand", "core.alternateRefsCommand", "core.pager", "core.askPass"):  # fmt: skip
            _git(source, "config", name, f"touch {canary}")
        for hook in ("post-checkout", "pre-receive", "post-update", "reference-transaction"):
            path = source / ".git" / "hooks" / hook
            path.write_text(f"#!/bin/sh\ntouch {canary}\n")
            path.chmod(0o755)
        found = workspaces.checkout("run_1", str(source), "HEAD")
        assert (found.path / "file").read_text() == "one"
        assert not canary.exists()

    @pytest.mark.parametrize(
        "url",
        ["ext::sh -c touch% {}/canary", "http://example.com/x", "git://example.com/x", "--upload-pack=touch {}/canary",
         "-u", "ssh://-oProxyCommand=x/y", "file://example.com/x", "{}/elsewhere", "file://{}/elsewhere", "fd::17",
         "user@host:-x", "https://", "a/b", "", "https://x y", "ftp://x/y", "git@-oProxy:x"],
    )  # fmt: skip
    def test_other_addresses_are_refused(
        self, workspaces: DirectoryWorkspaces, tmp_path: Path, url: str
    ) -> None:
        with pytest.raises(WorkspaceRefused):
            workspaces.checkout("run_1", url.format(tmp_path), "HEAD")
        assert not (tmp_path / "canary").exists()

    def test_a_failed_clone_shows_no_password(self, workspaces: DirectoryWorkspaces) -> None:
        with pytest.raises(WorkspaceRefused) as refused:
            workspaces.checkout("run_1", "https://user:hunter2@localhost:1/x", "HEAD")
        assert "hunter2" not in f"{refused.value} {refused.value.mend}"
        assert "may read it" in refused.value.mend


def test_a_link_in_the_place_of_the_workspace_leads_nowhere(
    workspaces: DirectoryWorkspaces, tmp_path: Path
) -> None:
    work, outside = tmp_path / "roots" / "w", tmp_path / "outside"
    work.parent.mkdir(exist_ok=True)
    outside.mkdir()
    (outside / "secret").write_text("top secret")
    work.symlink_to(outside)
    assert workspaces.read_text(work, "secret", limit=100) is None
    assert workspaces.fingerprint(work, "secret", limit=100) is None
    assert not workspaces.create_text(work, "new", "x")
    assert not workspaces.remove_file(work, "secret")
    assert [entry.name for entry in outside.iterdir()] == ["secret"]
