"""The batch script of docs/cluster.md; `python -m tests.faults.cluster` runs it with a training."""

import pytest

from tests.faults.cluster import install, sbatch, script


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False), (78, False), (137, False)])
def test_a_job_requeues_itself_only_where_the_same_command_continues(code, requeued, tmp_path):
    env = install(tmp_path, srun="#!/bin/sh\nexit $1\n")
    assert sbatch(script(str(code)), tmp_path, env).wait() == code
    assert (tmp_path / "requeued").exists() == requeued
