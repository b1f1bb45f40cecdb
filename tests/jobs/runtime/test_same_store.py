"""Mirrors cdm_cli/jobs/runtime/same_store.py: what a job continues, and what it refuses."""

from dataclasses import replace

import pytest

from cdm_cli.data.store import create
from cdm_cli.errors import MissingError, WouldOverwriteError
from cdm_cli.jobs.runtime.same_store import check_resume_or_create, resume_or_create
from tests.data.stores import samples_spec

OTHER = {"command": "cdm sample base", "identity": {"seed": 1, "steps": 4}}


@pytest.mark.parametrize("take", [resume_or_create, check_resume_or_create])
def test_another_store_is_not_continued(tmp_path, take):
    path = tmp_path / "a.h5"
    create(path, samples_spec()).close()
    with pytest.raises(WouldOverwriteError, match="another command: --seed was 0, is 1"):
        take(path, samples_spec(provenance=OTHER))
    with pytest.raises(WouldOverwriteError, match="kind was samples, is prepared"):
        take(path, replace(samples_spec(provenance=OTHER), kind="prepared"))
    with pytest.raises(WouldOverwriteError, match=r"parts\.\.num was 20, is 21"):
        take(path, samples_spec(num=21))
    with resume_or_create(path, samples_spec()) as store:  # and who was refused holds no lock
        assert store.parts[""].list_missing() == [0, 1, 2]


def test_what_is_checked_first_writes_nothing(tmp_path):
    check_resume_or_create(tmp_path / "a.h5", samples_spec())
    with pytest.raises(MissingError, match="does not exist"):
        check_resume_or_create(tmp_path / "no" / "a.h5", samples_spec())
    assert list(tmp_path.iterdir()) == []
