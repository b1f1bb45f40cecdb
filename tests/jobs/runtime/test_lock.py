"""Mirrors cdm_cli/jobs/runtime/lock.py."""

import pytest

from cdm_cli.errors import DiskError
from cdm_cli.jobs.runtime.lock import NAME, hold_lock


def test_a_directory_that_cannot_be_written_is_told_as_any_other_file(tmp_path):
    (tmp_path / NAME).mkdir()
    with (
        pytest.raises(DiskError, match="cannot be written"),
        hold_lock(tmp_path),
    ):
        pass
