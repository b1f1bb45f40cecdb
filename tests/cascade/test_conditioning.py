"""Mirrors cdm_cli/cascade/conditioning.py."""

import pytest
import torch

from cdm_cli.cascade.conditioning import (
    check_s,
    check_same_process,
    draw_non_truncated,
    take_truncated,
)
from cdm_cli.config import ConditioningConfig, ScheduleConfig
from cdm_cli.diffusion.schedules import cosine, from_config
from cdm_cli.errors import MismatchError, UsageError
from tests.tiny import COSINE, continuous_config, sr_config

CONFIG = sr_config()


def limited(**changes):
    return sr_config(conditioning=ConditioningConfig(resolution=8, z_schedule=COSINE, **changes))


def pixels(num, generator):
    return torch.randint(0, 256, (num, 3, 8, 8), dtype=torch.uint8, generator=generator)


def test_s_0_is_the_stored_image_itself(generator):
    z_0 = pixels(4, generator)
    z = draw_non_truncated(CONFIG, z_0, 0, ids=torch.arange(4), seed=0)
    assert torch.equal(z, z_0.float() / 127.5 - 1)


def test_z_s_is_q_of_z_0_with_one_eps_for_every_s(generator):
    """Section 3.3: z'_s = sqrt(alpha_bar_s) z_0 + sqrt(1 - alpha_bar_s) eps, held per sample."""
    z_0, alpha_bar = pixels(6, generator), cosine(20).alpha_bar
    z = {s: draw_non_truncated(CONFIG, z_0, s, ids=torch.arange(6), seed=5) for s in (3, 11, 20)}
    clean = z_0.double() / 127.5 - 1
    eps = {
        s: (z_s.double() - alpha_bar[s].sqrt() * clean) / (1 - alpha_bar[s]).sqrt()
        for s, z_s in z.items()
    }
    torch.testing.assert_close(eps[3], eps[20], atol=1e-5, rtol=0)
    torch.testing.assert_close(eps[11], eps[20], atol=1e-5, rtol=0)
    assert abs(eps[20].mean().item()) < 5 / eps[20].numel() ** 0.5
    assert eps[20].std().item() == pytest.approx(1, abs=0.05)


def test_z_s_depends_on_seed_and_id_alone(generator):
    z_0 = pixels(6, generator)
    whole = draw_non_truncated(CONFIG, z_0, 7, ids=torch.arange(6), seed=5)
    some = draw_non_truncated(CONFIG, z_0[[4, 1]], 7, ids=torch.tensor([4, 1]), seed=5)
    assert torch.equal(some, whole[[4, 1]])
    other = draw_non_truncated(CONFIG, z_0, 7, ids=torch.arange(6), seed=6)
    assert not torch.equal(other, whole)


def test_truncated_states_come_as_they_were_kept(generator):
    z = 3 * torch.randn(2, 8, 8, 3, generator=generator).half()
    got = take_truncated(z)
    assert got.dtype == torch.float32
    assert got.shape == (2, 3, 8, 8)
    assert torch.equal(got[1, 2], z[1, :, :, 2].float())


def test_s_within_what_was_trained():
    assert check_s(CONFIG, 20) == 20
    assert check_s(limited(s_min=3, s_max=9, s_zero=0.1), 0) == 0
    assert check_s(continuous_config(), None) == 0
    assert check_s(continuous_config(), 0) == 0


@pytest.mark.parametrize(
    ("config", "s", "augment", "says"),
    [
        (CONFIG, None, None, r"--s is missing: the stage takes 0\.\.20"),
        (CONFIG, 21, None, r"--s 21: the stage was trained on s = 0\.\.20"),
        (limited(s_min=3, s_max=9), 2, None, r"3\.\.9"),
        (limited(s_min=3, s_max=9), 0, None, r"3\.\.9"),
        (continuous_config(), 5, None, "s = 0 only"),
        (continuous_config(), None, "truncated", "s = 0 only"),
    ],
)
def test_another_s_is_refused(config, s, augment, says):
    with pytest.raises(UsageError, match=says):
        check_s(config, s, augment)


def test_a_state_of_another_process_does_not_fit():
    conditioning = CONFIG.conditioning
    same = from_config(COSINE).alpha_bar.tolist()
    check_same_process(conditioning, same, (3, 20), "lowres.h5")
    other = from_config(ScheduleConfig(kind="cosine", T=21)).alpha_bar.tolist()
    with pytest.raises(MismatchError, match=r"lowres\.h5: z/3"):
        check_same_process(conditioning, other, (3,), "lowres.h5")
    with pytest.raises(MismatchError, match="z/20"):
        check_same_process(conditioning, same[:10], (20,), "lowres.h5")


@pytest.mark.parametrize("s", [None, 100])
def test_the_s_that_is_advised_is_one_that_the_stage_takes(s):
    config = limited(s_min=8, s_max=10)
    with pytest.raises(UsageError) as caught:
        check_s(config, s)
    advised = int(caught.value.next.split()[1].rstrip(","))
    assert check_s(config, advised) == advised
    assert ("cdm sweep-s" in caught.value.next) == (s is None)  # which says so of its own --s, too
