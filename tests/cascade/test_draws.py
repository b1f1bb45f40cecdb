"""Mirrors cdm_cli/cascade/draws.py: what is drawn for an image is drawn with it."""

import pytest
import torch

from cdm_cli.cascade.draws import draw
from cdm_cli.config import ConditioningConfig, ScheduleConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.nets.kernels.recorded import leaves
from tests.tiny import base_config, sr_config

BLUR = ConditioningConfig(resolution=8, z_schedule=ScheduleConfig(T=20), blur=True)
SR = sr_config(conditioning=BLUR)


def drawn(config, num, **changes):
    """Draw for num images, of which a process has two."""
    z_0 = torch.zeros(2, 3, 8, 8) if config.conditioning else None
    batch = TrainBatch(torch.zeros(2, 3, 16, 16), z_0, torch.zeros(2, dtype=torch.int64))
    how = {"flip": True, "dropouts": 5} | changes
    return draw(config, batch, torch.Generator().manual_seed(3), num, **how)


@pytest.mark.parametrize("config", [base_config(), SR])
def test_all_is_drawn_for_as_many_images_as_asked(config):
    found = [x for x in leaves(drawn(config, 6)) if x is not None]
    assert len(found) == (9 if config.conditioning else 5)
    assert all(len(x) == 6 and len(x.unique(dim=0)) > 1 for x in found)


def test_seeds_of_dropout_change_nothing_else_that_is_drawn():
    """So a training without dropout has the noise that it had when seeds were not drawn here."""
    with_seeds, without = drawn(SR, 6), drawn(SR, 6, dropouts=0)
    assert without.seeds is None
    assert with_seeds.seeds is not None
    assert with_seeds.seeds.shape == (6, 5)
    assert len(with_seeds.seeds.unique()) == 30, "each block of each image has its own"
    for one, other in zip(with_seeds[:-1], without[:-1], strict=True):
        assert torch.equal(one, other)


def test_nothing_is_mirrored_unless_asked():
    assert not drawn(SR, 6, flip=False).flip.any()
    assert torch.equal(drawn(SR, 6, flip=False).eps, drawn(SR, 6).eps)
