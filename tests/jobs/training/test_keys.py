"""Mirrors cdm_cli/jobs/training/keys.py: what is random is keyed by the place in the batch."""

import zipfile
from pathlib import Path

import pytest
import torch

from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.keys import Keys, derive_seed
from tests.jobs.training.line import CPU, VALUES, Line, batch, settings
from tests.trained import rows, train

OLD = Path(__file__).parents[2] / "fixtures/5c42c8b/home.zip"
OLD_LOSSES = [1.123236895, 4.872620106, 4.700328350, 2.372719049, 0.967257142]  # from step 1


def test_seeds_depend_on_every_part():
    seeds = {
        derive_seed(*parts) for parts in [(0, 1, 2), (0, 2, 1), (0, 12), (0, 1, 2, "dropout", 0)]
    }
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, 1, 2) == derive_seed(0, 1, 2)


def drawn(step, rank=0, processes=1, **changes):
    """Return what a process draws in a step, whatever was drawn before."""
    keys = Keys(Line(), settings(**changes), World(rank=rank, size=processes), CPU)
    torch.rand(3)
    keys._generator.manual_seed(step)
    (noise,) = keys.draw(step, batch(VALUES[: 4 // processes]))
    return noise


def test_an_image_has_the_noise_of_its_place_in_any_number_of_processes():
    whole = drawn(3)
    assert len(whole.unique()) == 4
    for processes in (2, 4):
        shares = [drawn(3, rank, processes) for rank in range(processes)]
        assert torch.equal(torch.cat(shares), whole)


def test_what_is_drawn_depends_on_seed_and_step():
    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(4), drawn(3))
    assert not torch.equal(drawn(3, seed=1), drawn(3))


def test_torchs_default_generator_drops_in_older_trainings_alone():
    keys = Keys(Line(), settings(), World(), CPU)
    before = torch.get_rng_state()
    keys.draw(3, batch())
    keys.begin_micro_batch(3, 0)
    assert torch.equal(torch.get_rng_state(), before)
    numbers = []
    for rank, start in ((0, 0), (1, 0), (0, 2)):
        keys = Keys(Line(), settings(keyed_by="rank"), World(rank=rank, size=2), CPU)
        keys.begin_micro_batch(3, start)
        numbers.append(torch.rand(1).item())
    assert len(set(numbers)) == 3


def test_ranks_of_older_trainings_draw_for_themselves():
    one, two = (drawn(3, rank, 2, keyed_by="rank") for rank in (0, 1))
    assert not torch.equal(one, two)
    assert not torch.equal(torch.cat([one, two]), drawn(3))


@pytest.fixture
def old(tmp_path):
    with zipfile.ZipFile(OLD) as file:
        file.extractall(tmp_path)
    return tmp_path


def test_an_older_training_goes_on_with_its_keys(old):
    """That of two processes is in test_exact.py, where processes are started."""
    train(old, "model.dropout=0.2", "training.keep=9")
    losses = [row["loss"] for row in rows(old / "runs/base")]
    assert losses == pytest.approx(OLD_LOSSES, rel=1e-6)
    train(old, "model.dropout=0.2", "training.keep=9", name="new")
    assert [row["loss"] for row in rows(old / "runs/new")] != pytest.approx(losses, rel=1e-6)
