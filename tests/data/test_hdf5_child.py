"""Mirrors cdm_cli/data/hdf5_child.py: what is left open once the file is.

Each test runs code where the child would read values, behind the same doors.
"""

import os
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from cdm_cli.data import hdf5_child
from tests.hostile import make

HEAD = f"""
import os, resource, sys
sys.path.insert(0, {os.path.dirname(hdf5_child.__file__)!r})
import hdf5_child
from hdf5_child import *
root = hdf5_child._open_root(int(sys.argv[1]))
def fails(call, *args):
    try: got = call(*args)
    except Exception as error: return type(error).__name__
    return repr(got)[:300]
def read(name):
    found = h5o.open(root, name)
    values = np.zeros(found.shape, "u1")
    found.read(h5s.ALL, h5s.ALL, values)
    return values.tobytes()[:200]
"""


def behind_doors(path, code):
    """Return what code writes, which runs as the child with the file open."""
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-P", "-c", HEAD + textwrap.dedent(code), str(file.fileno())],
            pass_fds=[file.fileno()], capture_output=True, text=True, check=False, timeout=60,
            env={name: value for name, value in os.environ.items() if name != "HDF5_PLUGIN_PATH"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.arange(100, dtype=np.uint8)
    return path


def test_the_file_itself_is_read(plain):
    assert behind_doors(plain, "print(read(b'images')[3])") == ["3"]


def test_no_other_file_can_be_opened_nor_written(plain, tmp_path):
    words = behind_doors(
        plain,
        f"""
        print(fails(open, "/etc/hostname"), fails(open, {str(tmp_path / "new")!r}, "w"))
        print(fails(h5f.open, {str(plain).encode()!r}), fails(os.pipe), fails(os.dup, 1))
        import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        print(fails(os.open, "/dev/null", os.O_WRONLY))
        """,
    )
    assert words == ["OSError"] * 6
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name", ["external link", "external storage", "external storage in a pipe", "virtual dataset"]
)
def test_even_unchecked_nothing_leads_elsewhere(name, tmp_path):
    """Should a check be passed by, there is still no way out."""
    path = tmp_path / "hostile.h5"
    make.HDF5[name](path, make.outside_of(tmp_path))
    (told,) = behind_doors(path, "print(fails(read, b'images').replace(' ', ''))")
    assert told.endswith("Error") or set(told) <= set("b'M")  # 77, the fill value
    assert make.SECRET.decode() not in told


def test_memory_and_time_have_an_end(plain):
    words = behind_doors(
        plain,
        """
        print(fails(bytes, 2**30))
        limits = [resource.getrlimit(what) for what in (resource.RLIMIT_CPU, resource.RLIMIT_CORE)]
        print(limits[0][0], limits[1][1])
        """,
    )
    assert words == ["MemoryError", "60", "0"]
