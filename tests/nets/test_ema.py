"""Mirrors cdm_cli/nets/ema.py."""

import pytest
import torch
from torch import nn

from cdm_cli.nets.ema import Ema


def line(value: float) -> nn.Linear:
    net = nn.Linear(1, 1)
    for parameter in net.parameters():
        nn.init.constant_(parameter, value)
    return net


def test_warm_up_then_the_constant_decay():
    ema = Ema(line(0.0), 0.5)
    decays = []
    for _ in range(12):
        decays.append(ema.current_decay())
        ema.update()
    assert decays[:3] == [2 / 11, 3 / 12, 4 / 13]
    assert decays[-1] == 0.5


def test_average_of_a_moving_weight_by_hand():
    net = line(0.0)
    ema, by_hand = Ema(net, 0.9), 0.0
    for n in range(1, 21):
        nn.init.constant_(net.weight, float(n))
        ema.update()
        decay = min(0.9, (1 + n) / (10 + n))
        by_hand = decay * by_hand + (1 - decay) * n
    assert ema.state_dict()["weight"].item() == pytest.approx(by_hand, rel=1e-6)


def test_the_shadow_is_float32_and_resolves_what_bfloat16_does_not():
    net = line(1.0).to(torch.bfloat16)
    ema = Ema(net, 0.0)
    ema.load_state_dict({name: t + 1e-4 for name, t in ema.state_dict().items()}, 10**6)
    assert ema.state_dict()["weight"].dtype == torch.float32
    assert ema.state_dict()["weight"].item() == pytest.approx(1.0001, abs=1e-6)


def test_saved_averages_continue_where_they_stopped():
    net = line(2.0)
    first, second = Ema(net, 0.99), Ema(net, 0.99)
    for _ in range(5):
        first.update()
    saved = {name: t.clone() for name, t in first.state_dict().items()}
    second.load_state_dict(saved, first.num_updates)
    first.update(), second.update()
    assert torch.equal(first.state_dict()["weight"], second.state_dict()["weight"])
    with pytest.raises(KeyError, match="names differ"):
        second.load_state_dict({"weight": saved["weight"]}, 5)


def test_copy_to_another_network():
    net, other = line(3.0), line(0.0)
    Ema(net, 0.9).copy_to(other)
    assert other.weight.item() == 3.0
