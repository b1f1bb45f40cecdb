"""A workspace that a sweep was made in, once for a module, and copied for each of its tests."""

import shutil

import pytest

from tests.jobs.sweep.sweeping import write_workspace
from tests.tiny import in_new_folder, sr_config


@pytest.fixture(scope="module")
def made(request, tmp_path_factory):
    """A workspace with the sweep of a module in it: that of its function `swept`."""
    with in_new_folder(tmp_path_factory) as home:
        write_workspace(home, sr_config(4, 8))
        request.module.swept()
    return home


@pytest.fixture
def workspace(made, tmp_path, monkeypatch):
    """A copy of it, as the current directory."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
