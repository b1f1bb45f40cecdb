"""A copy, for each test, of the workspace that a module's `made` searched schedules in."""

import shutil

import pytest


@pytest.fixture
def tuned(made, tmp_path, monkeypatch):
    """The workspace and the search in it, as the current directory."""
    home = tmp_path / "home"
    shutil.copytree(made, home)
    monkeypatch.chdir(home)
    return home
