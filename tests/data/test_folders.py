"""Mirrors cdm_cli/data/folders.py and listing.py: a walk that neither leaves nor waits."""

import os

import pytest

from cdm_cli.data.folders import LINK, open_folder
from cdm_cli.data.images import BadImageError
from cdm_cli.data.listing import read_regular
from cdm_cli.data.skips import Skips
from cdm_cli.errors import DiskError, UnsafeInputError
from tests.drawings import write_folder


def test_links_devices_and_loops_are_passed_over(tmp_path):
    root = write_folder(tmp_path / "set", {"a/1.png": b"1"})
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "a/link.png").symlink_to(tmp_path / "secret.png")
    (root / "a/loop").symlink_to(root)
    (root / "a/zero.png").symlink_to("/dev/zero")
    os.mkfifo(root / "a/fifo.png")
    skips = Skips()
    assert open_folder(root, skips).names == ["a/1.png"]
    assert skips.counts == {LINK: 3, "not a regular file": 1}


def test_links_are_followed_on_demand(tmp_path):
    root = write_folder(tmp_path / "set", {"a/1.png": b"1"})
    far = write_folder(tmp_path / "far", {"n1/x.png": b"x", "n1/deep/y.png": b"y", "one.png": b"z"})
    (root / "b").symlink_to(far / "n1")
    (root / "a/2.png").symlink_to(far / "one.png")
    (root / "a/3.png").symlink_to("2.png")
    (root / "a/gone.png").symlink_to("nowhere")
    (root / "a/self.png").symlink_to("self.png")
    (root / "a/zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo")
    (root / "a/fifo.png").symlink_to(tmp_path / "fifo")
    (root / "a/endless.png").symlink_to("/proc/self/pagemap")
    skips = Skips()
    source = open_folder(root, skips, follow=True)
    data = {name: source.read(i) for i, name in enumerate(source.names) if "endless" not in name}
    assert data == {"a/1.png": b"1", "a/2.png": b"z", "a/3.png": b"z", "b/deep/y.png": b"y",
                    "b/x.png": b"x"}  # fmt: skip
    assert skips.counts == {"symbolic link that leads nowhere": 2, "not a regular file": 2}
    place = source.names.index("a/endless.png")
    with pytest.raises(BadImageError, match="more than 128 MiB"):
        source.take([place]).read(0)


@pytest.mark.parametrize(
    ("link", "target", "other"),
    [("b/loop", "..", "'b/loop' and it"), ("b/loop", ".", "'b'"), ("c", "b", "'c' and 'b'")],
)
def test_a_folder_is_listed_once_whatever_leads_to_it(tmp_path, link, target, other):
    root = write_folder(tmp_path / "set", {"a/1.png": b"1", "b/1.png": b"1"})
    (root / link).symlink_to(target)
    with pytest.raises(UnsafeInputError, match=other):
        open_folder(root, Skips(), follow=True)
    assert open_folder(root, Skips()).names == ["a/1.png", "b/1.png"]


def test_folders_that_double_at_each_level_end_at_once(tmp_path):
    """2^40 paths lead to the last of 40 folders."""
    for level in range(40):
        (tmp_path / f"{level}").mkdir()
        for name in "ab":
            (tmp_path / f"{level}" / name).symlink_to(tmp_path / f"{level + 1}")
    with pytest.raises(UnsafeInputError, match="are one folder"):
        open_folder(tmp_path / "0", Skips(), follow=True)


def test_the_root_itself_may_be_a_link(tmp_path):
    root = write_folder(tmp_path / "set", {"a/1.png": b"1"})
    (tmp_path / "link").symlink_to(root)
    source = open_folder(tmp_path / "link", Skips())
    assert source.read(0) == b"1"
    assert source.name == "link"


def test_names_of_any_bytes(tmp_path):
    folder = os.fsencode(tmp_path / "set")
    os.makedirs(os.path.join(folder, b"caf\xe9"))
    for name in (b"line\nbreak.png", b"\xff\xfe.png", b"-rf .png"):
        with open(os.path.join(folder, b"caf\xe9", name), "wb") as file:
            file.write(b"x")
    skips = Skips()
    source = open_folder(tmp_path / "set", skips)
    assert [source.read(i) for i in range(3)] == [b"x"] * 3
    assert len(source.digest()) == 64
    skips.add("x", source.names[0])
    skips.add("x", source.names[1])
    assert skips.examples["x"] == ["caf\\xe9/-rf .png", "caf\\xe9/line\\nbreak.png"]


def test_deep_folders_do_not_recurse(tmp_path):
    path = tmp_path
    for _ in range(300):
        path = path / "d"
    path.mkdir(parents=True)
    (path / "1.png").write_bytes(b"x")
    assert open_folder(tmp_path, Skips()).names == ["d/" * 300 + "1.png"]


def test_reading_never_waits_or_follows(tmp_path):
    """What was a file while listing may be anything while reading."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadImageError, match="not a regular file"):
        read_regular(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(DiskError, match="changed while it was read"):
        read_regular(tmp_path / "link")
    with pytest.raises(DiskError, match="changed while it was read"):
        read_regular(tmp_path / "gone")


def test_a_file_too_large_is_not_read(tmp_path):
    with open(tmp_path / "big.png", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadImageError, match="more than 128 MiB"):
        read_regular(tmp_path / "big.png")
