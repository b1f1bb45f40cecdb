"""Mirrors cdm_cli/jobs/training/objective.py: a batch in parts is the batch."""

import pytest
import torch
import torch.nn.functional as F

from cdm_cli.config import ClassifierConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.data.pixels import from_uint8
from cdm_cli.jobs.training.objective import (
    ClassifierObjective,
    StageObjective,
    build_objective,
    crop_shifted,
)
from cdm_cli.nets.kernels.recorded import map_tensors
from cdm_cli.plans import TrainingConfig
from tests.tiny import CLASSES, base_config, pictures, sr_config

CPU = torch.device("cpu")
CLASSIFIER = ClassifierConfig(
    resolution=8, base_channels=8, channel_mult=(1,), num_res_blocks=1, num_classes=3
)


def images(num=6, low=False):
    x_0 = torch.from_numpy(pictures(num, 16 if low else 8)).permute(0, 3, 1, 2)
    return TrainBatch(x_0, x_0[..., ::2, ::2] if low else None, torch.arange(num) % 3)


def built(config, **changes):
    training = TrainingConfig(**({"steps": 1, "seed": 3, "keyed_by": "place"} | changes))
    return build_objective(config, CLASSES, training, CPU, "fp32")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def losses(objective, batch, generator):
    return objective.compute_losses(batch, objective.draw(batch, generator, len(batch.y)))


@pytest.mark.parametrize(
    ("config", "low"),
    [(base_config(dropout=0.3), False), (sr_config(), True), (CLASSIFIER, False)],
)
def test_parts_have_the_losses_of_the_whole(config, low):
    """In training: what drops of an image is drawn with it."""
    objective, batch = built(config, crop_pad=2), images(low=low)
    objective.net.train()
    with torch.no_grad():
        for parameter in objective.net.parameters():  # the last layers begin with zeros
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(5)))
        inputs = batch, objective.draw(batch, generator(), len(batch.y))
        whole = objective.compute_losses(*inputs)
        rows = slice(0, 1), slice(1, 4), slice(4, 6)
        parts = torch.cat(
            [
                objective.compute_losses(*map_tensors(lambda x, some=some: x[some], inputs))
                for some in rows
            ]
        )
    assert whole.shape == (6,)
    assert len(whole.unique()) == 6
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_everything_random_comes_from_the_generator():
    objective, batch = built(base_config()), images()
    assert isinstance(objective, StageObjective)
    one = losses(objective, batch, generator(1))
    torch.rand(7)
    same = losses(objective, batch, generator(1))
    other = losses(objective, batch, generator(2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("config", [base_config(), CLASSIFIER])
def test_first_weights_depend_on_the_seed_alone(config):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one, same, other = built(config), built(config), built(config, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(one.net.parameters(), same.net.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    pairs = zip(one.net.parameters(), other.net.parameters(), strict=True)
    assert not all(torch.equal(*pair) for pair in pairs)


def test_windows_are_cut_out_of_a_reflected_border():
    x = torch.arange(9.0).view(1, 1, 3, 3).repeat(3, 1, 1, 1)
    shift = torch.tensor([[1, 0, 2], [1, 0, 1]])  # rows, then columns, of each image
    found = crop_shifted(x, shift, 1)
    assert torch.equal(found[0], x[0])  # the middle is the image itself
    assert found[1, 0].tolist() == [[4, 3, 4], [1, 0, 1], [4, 3, 4]]
    assert found[2, 0].tolist() == [[3, 4, 5], [6, 7, 8], [3, 4, 5]]
    assert crop_shifted(x, shift, 0) is x


def test_a_classifier_is_trained_by_cross_entropy_on_flipped_and_shifted_images():
    objective, batch = built(CLASSIFIER, flip=False), images()
    assert isinstance(objective, ClassifierObjective)
    found = losses(objective, batch, generator())
    logits = objective.net(from_uint8(batch.x_0))[1]
    torch.testing.assert_close(found, F.cross_entropy(logits, batch.y, reduction="none"))
    seen = []
    objective.logits = lambda x: seen.append(x) or objective.net(x)[1]
    flipping = built(CLASSIFIER, flip=True)
    flipping.logits = lambda x: seen.append(x) or flipping.net(x)[1]
    many = images(40)
    losses(objective, many, generator())
    losses(flipping, many, generator())
    plain, mirrored = seen
    assert torch.equal(plain, from_uint8(many.x_0))
    flipped = [not torch.equal(a, b) for a, b in zip(plain, mirrored, strict=True)]
    assert 10 < sum(flipped) < 30
    assert torch.equal(mirrored[flipped], plain[flipped].flip(-1))


def test_a_stage_flips_only_if_it_is_told_to():
    batch = images(32)
    for flip in (True, False):
        objective = built(base_config(), flip=flip)
        draws = objective.draw(batch, generator(), len(batch.y))
        assert bool(draws.flip.any()) == flip
