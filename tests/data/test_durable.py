"""Mirrors cdm_cli/data/durable.py: what a kill, a full disk and another process leave behind."""

import errno
import os
import re
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cdm_cli import signals
from cdm_cli.data import disk, durable, renaming
from cdm_cli.errors import DiskError, MissingError
from tests.forking import fork


class Killed(BaseException):
    """What a killed process does next: nothing."""


def announced(action):
    """Return the kinds of the system calls of an action, in order."""
    seen = []
    with disk.announce_to(seen.append):
        action()
    return [io.kind for io in seen]


def at_call(number, act):
    """A hook that acts at one call."""
    left = iter(range(number))

    def hook(io):
        if next(left, None) is None:
            act(io)

    return hook


def fail(code):
    def act(io):
        raise OSError(code, os.strerror(code))

    return act


def kill(io):
    raise Killed


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_directory_that_a_thread_still_fills_is_removed_too(tmp_path):
    late = iter(["late"])

    def fill(io):
        if io.kind == "rmdir" and (name := next(late, "")):
            (io.path / name).touch()

    with (
        disk.announce_to(fill),
        pytest.raises(Killed),
        durable.make_partial(tmp_path / "a", directory=True),
    ):
        raise Killed
    assert names(tmp_path) == []


def test_nothing_is_begun_while_a_signal_ends_the_program(tmp_path):
    """A thread that saves begins the next file within the milliseconds that this takes."""

    def begin():
        with durable.make_partial(tmp_path / "a", directory=True):
            time.sleep(5)

    def begin_meanwhile():
        threading.Thread(target=begin, daemon=True).start()
        time.sleep(0.2)

    if not (pid := fork()):
        with signals.undo_if_left(begin_meanwhile):
            signals.leave(signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    assert names(tmp_path) == []


def test_a_file_is_synced_before_it_has_its_name(tmp_path):
    kinds = announced(lambda: durable.write_file_atomically(tmp_path / "a", b"new"))
    assert kinds == ["create", "write", "sync", "rename", "sync_directory"]
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("act", [kill, fail(errno.ENOSPC), fail(errno.EIO)])
def test_readers_see_all_of_the_old_or_all_of_the_new(tmp_path, number, act):
    path = tmp_path / "a"
    path.write_bytes(b"old and long")
    with pytest.raises((Killed, DiskError)), disk.announce_to(at_call(number, act)):
        durable.write_file_atomically(path, b"new")
    assert path.read_bytes() == (b"new" if number > 3 else b"old and long")
    assert names(tmp_path) == ["a"], "no litter"


@pytest.mark.parametrize(
    ("code", "then"),
    [
        (errno.ENOSPC, "free space"), (errno.EDQUOT, "free space"), (errno.EIO, "see to the disk"),
        (errno.EROFS, "where you may"), (errno.EISDIR, "a name"), (errno.ENAMETOOLONG, "a shorter"),
    ],
)  # fmt: skip
def test_a_failing_disk_is_named_with_what_to_do(tmp_path, code, then):
    with (
        pytest.raises(DiskError, match=re.escape(os.strerror(code))) as caught,
        disk.announce_to(at_call(1, fail(code))),
    ):
        durable.write_file_atomically(tmp_path / "a", b"new")
    assert then in caught.value.next
    assert "-o" not in caught.value.next, "not every command has it"


def test_a_missing_directory_is_not_a_broken_disk(tmp_path):
    with pytest.raises(MissingError, match=r"nowhere does not exist"):
        durable.write_file_atomically(tmp_path / "nowhere/a", b"")


def test_short_writes_go_on(tmp_path, monkeypatch):
    whole, really = bytes(range(100)), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: really(fd, data[:7], at))
    durable.write_file_atomically(tmp_path / "a", whole)
    assert (tmp_path / "a").read_bytes() == whole


def test_what_a_killed_process_left_is_swept(tmp_path):
    """A child dies with its file open: its lock goes, its litter is the next one's."""
    path = tmp_path / "a"
    pid = fork()
    if pid == 0:
        with durable.make_partial(path):
            os._exit(0)
    os.waitpid(pid, 0)
    assert len(names(tmp_path)) == 1
    (tmp_path / ".b.1.partial").touch()
    durable.write_file_atomically(path, b"new")
    assert names(tmp_path) == [".b.1.partial", "a"]


def test_what_another_process_is_writing_is_not_swept(tmp_path):
    with durable.make_partial(tmp_path / "a") as (fd, temporary):
        durable.write_file_atomically(tmp_path / "a", b"theirs")
        disk.pwrite_all(fd, temporary, b"ours", 0)
        renaming.rename(temporary, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"ours"


def test_a_file_swept_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    """Between its creation and its lock a file looks like litter to another process."""
    really, swept = durable.fcntl.flock, []

    def flock(fd, operation):
        if not swept:
            swept.extend(tmp_path.iterdir())
            swept[0].unlink()
        really(fd, operation)

    monkeypatch.setattr(durable.fcntl, "flock", flock)
    durable.write_file_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    assert swept


@pytest.mark.parametrize("kernel", [True, False])
def test_a_new_name_is_never_taken_twice(tmp_path, monkeypatch, kernel):
    if not kernel:
        monkeypatch.setattr(renaming, "_renameat2", lambda source, target: False)
    for name in ("x", "y"):
        (tmp_path / name).write_text(name)
    renaming.rename_new(tmp_path / "x", tmp_path / "a")
    assert names(tmp_path) == ["a", "y"]
    with pytest.raises(renaming.ExistsError):
        renaming.rename_new(tmp_path / "y", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "x"
    assert (tmp_path / "y").read_text() == "y"


def test_more_than_the_disk_has_is_refused_beforehand(tmp_path):
    with durable.make_partial(tmp_path / "a") as (fd, temporary):
        with pytest.raises(DiskError, match=rf"^{tmp_path}/a needs 4612 PB, .* are free"):
            disk.reserve(fd, temporary, 2**62)
        assert os.fstat(fd).st_size == 0
        disk.reserve(fd, temporary, 10**5)
        assert os.fstat(fd).st_blocks * 512 >= 10**5, "reserved, not merely promised"


def test_what_is_refused_is_named_as_it_was_asked_for(tmp_path, monkeypatch):
    """By no name of ours that is not there any more; and in units that differ."""
    with (
        pytest.raises(DiskError, match=rf"^{tmp_path}/a\.png cannot be written: No space left"),
        disk.announce_to(fail_writes),
    ):
        durable.write_file_atomically(tmp_path / "a.png", b"x")
    for made, name in (
        (".step-00000003.partial/model.safetensors", "step-00000003/model.safetensors"),
        ("d.h5.preparing", "d.h5"),
        (".d.h5.val.unpacked.0123abcd.partial", "d.h5"),
        ("my.partial", "my.partial"),
        ("my.run.partial/a.png", "my.run.partial/a.png"),
        ("notes.unpacked", "notes.unpacked"),
    ):
        assert f"{disk.disk_error(Path(made), OSError())}".startswith(f"{name} cannot be written")
    with pytest.raises(DiskError, match=rf"^{tmp_path}/new/sweep needs 4612 PB"):
        disk.check_room_in(tmp_path / "new/sweep", 2**62)
    room = SimpleNamespace(f_blocks=9, f_bavail=100, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: room)
    for size, words in (
        (409_700, "needs 409,700 B, 409,600 B are"),
        (500_000, "500 kB, 410 kB"),
    ):
        with pytest.raises(DiskError, match=words):
            disk.check_room(tmp_path / "a", size)
    disk.check_room_in(tmp_path / "new/sweep", 409_600)
    assert names(tmp_path) == []


def fail_writes(io):
    if io.kind == "write":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_directories_are_made_durably_one_by_one(tmp_path):
    kinds = announced(lambda: disk.make_directory(tmp_path / "a/b"))
    assert kinds == ["mkdir", "sync_directory"] * 2
    assert announced(lambda: disk.make_directory(tmp_path / "a/b")) == []


def test_removing_a_tree_follows_no_link(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "gone/deep").mkdir(parents=True)
    (tmp_path / "gone/link").symlink_to(tmp_path / "kept")
    (tmp_path / "gone/deep/link").symlink_to(tmp_path / "kept/file")
    disk.remove_tree(tmp_path / "gone")
    assert names(tmp_path) == ["kept"]
    (tmp_path / "alias").symlink_to(tmp_path / "kept")
    disk.remove_tree(tmp_path / "alias")
    assert names(tmp_path / "kept") == ["file"]


def test_the_first_file_of_a_tree_goes_durably_before_the_rest(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a", "manifest", "z"):
        (tree / name).touch()
    seen = []
    with disk.announce_to(seen.append):
        disk.remove_tree(tree, first="manifest")
    assert [(io.kind, io.path.name) for io in seen[:3]] == [
        ("unlink", "manifest"),
        ("sync_directory", "tree"),
        ("unlink", "a"),
    ]
    assert not tree.exists()


def test_appending_is_synced_and_follows_no_link(tmp_path):
    path = tmp_path / "a"
    kinds = announced(lambda: durable.append(path, b"1\n"))
    assert kinds == ["create", "write", "sync", "sync_directory"]
    assert announced(lambda: durable.append(path, b"2\n")) == ["create", "write", "sync"]
    assert path.read_bytes() == b"1\n2\n"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiskError, match="link"):
        durable.append(tmp_path / "link", b"x")
    assert names(tmp_path) == ["a", "link"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    with durable.make_partial(tmp_path / "a", directory=True) as (_, partial):
        (partial / "inside").write_bytes(b"1")
        renaming.rename_new(partial, tmp_path / "a")
    assert names(tmp_path) == ["a"]
    with (
        pytest.raises(renaming.ExistsError),
        durable.make_partial(tmp_path / "a", directory=True) as (_, partial),
    ):
        renaming.rename_new(partial, tmp_path / "a")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["inside"]


def test_directories_that_a_killed_process_left_are_swept_others_are_not(tmp_path):
    with durable.make_partial(tmp_path / "a", directory=True) as (_, partial):
        old = tmp_path / ".a.0123.partial"
        old.mkdir()
        (old / "inside").write_bytes(b"half")
        durable.sweep(tmp_path)
        assert names(tmp_path) == [partial.name]


def test_a_signal_that_ends_the_program_leaves_nothing_half_written(tmp_path):
    pid = fork()
    if pid == 0:
        signals.leave_when_asked()
        with (
            durable.make_partial(tmp_path / "a"),
            durable.make_partial(tmp_path / "b", directory=True),
        ):
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    assert names(tmp_path) == []


def test_a_tree_that_another_process_removes_at_the_same_time(tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"1")
    inside = []

    def other(io):
        if io.kind == "unlink" and not inside:
            inside.append(io)
            disk.remove_tree(tree)

    with disk.announce_to(other):
        disk.remove_tree(tree)
    assert names(tmp_path) == []


def test_a_second_name_replaces_a_file_and_stays_when_the_first_goes(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    kinds = announced(lambda: durable.link_file_atomically(source, target))
    assert kinds == ["link", "rename", "sync_directory"]
    assert source.stat().st_ino == target.stat().st_ino
    source.unlink()
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EMLINK])
def test_where_no_second_name_can_be_given_it_is_a_copy(tmp_path, monkeypatch, code):
    def link(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.link", link)
    (tmp_path / "a").write_bytes(b"new")
    durable.link_file_atomically(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_second_name_that_fails_leaves_the_old_file_and_no_litter(tmp_path, number):
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    with disk.announce_to(at_call(number, fail(errno.EIO))), pytest.raises(DiskError):
        durable.link_file_atomically(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "free"), [("", "b-2"), ("..", "a-2"), ("c/..", "b-2"), ("c/", "c-2"), ("/", "/new-2")]
)
def test_a_directory_without_a_name_is_told_another_one(tmp_path, monkeypatch, path, free):
    (tmp_path / "a/b/c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    found = durable.find_free_name(Path(path))
    assert found.name == Path(free).name
    assert not found.exists()
    assert found.parent.is_dir()


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        (["a-2.json"], "a-3.json"),
        (["a-2.trials.jsonl", "a-3.json.pruned", "a-4"], "a-5.json"),
        (["a-20.json", ".a-2.json.x.partial"], "a-2.json"),
    ],
)
def test_a_free_name_has_nothing_beside_it_that_goes_by_it(tmp_path, taken, free):
    for name in ("a.json", *taken):
        (tmp_path / name).touch()
    assert durable.find_free_name(tmp_path / "a.json") == tmp_path / free
