"""Mirrors cdm_cli/jobs/sampling/pace.py: a rate is timed, after the first steps."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cdm_cli.cascade.chain import build_chain
from cdm_cli.jobs.judging.cost import time_judge
from cdm_cli.jobs.sampling import pace
from cdm_cli.jobs.sampling.pace import measure_pace, time_random_network
from cdm_cli.jobs.training.pace import time_steps
from cdm_cli.options.sampling import Sampling
from cdm_cli.plans import Plan, TrainingConfig
from tests.tiny import base_config

CPU, STAGE = torch.device("cpu"), base_config(4, steps=8)
TIMED = {
    "sampling": lambda: time_random_network(STAGE, build_chain(STAGE, Sampling()), 2, CPU, "fp32"),
    "training": lambda: time_steps(
        Plan(preset="", source="", stage=STAGE, training=TrainingConfig(batch_size=2)), CPU, "fp32"
    ),
    "judging": lambda: time_judge(
        torch.Tensor.float, SimpleNamespace(images=np.zeros((1, 4, 4, 3))), CPU
    ),
}


def steps(num, seconds=0.01, first=0.0):
    for number in range(num):
        time.sleep(first if number < 3 else seconds)
        yield number


def test_slow_first_steps_do_not_count(monkeypatch):
    monkeypatch.setattr(pace, "SECONDS", 0.2)
    waited = []
    rate = measure_pace(steps(1000, first=0.1), 2, lambda: waited.append(1))
    assert rate == pytest.approx(100, rel=0.5)
    assert rate < 100
    assert len(waited) < 30, "it ends when it knows"


def test_a_chain_that_ends_early_is_timed_by_what_there_was():
    assert measure_pace(steps(5), 2, lambda: None) == pytest.approx(100, rel=0.5)
    assert measure_pace(steps(3), 2, lambda: None) is None
    assert measure_pace(steps(0), 2, lambda: None) is None


@pytest.mark.parametrize("what", TIMED)
def test_a_plan_that_times_draws_from_no_seed_of_its_caller(what, monkeypatch):
    monkeypatch.setattr(pace, "SECONDS", 0)
    before = torch.get_rng_state()
    assert TIMED[what]()
    assert torch.equal(torch.get_rng_state(), before)
