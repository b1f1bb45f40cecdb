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
        decays.append(ema.compute_decay())
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


def moved(net, ema, values):
    """Set the weights to each value in turn, and average."""
    for value in values:
        for parameter in net.parameters():
            nn.init.constant_(parameter, value)
        ema.update()
    return {name: tensor.clone() for name, tensor in ema.state_dict().items()}


def test_saved_averages_continue_where_they_stopped():
    """The averages themselves, and how far their warm-up was: weights that move show both."""
    net, other = line(0.0), line(7.0)
    first, second = Ema(net, 0.99), Ema(other, 0.99)
    saved = moved(net, first, [1.0, 2.0, 3.0, 4.0, 5.0])
    second.load_state_dict(saved, first.num_updates)
    assert (second.num_updates, second.compute_decay()) == (5, 7 / 16)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in second.state_dict().items())
    one, two = moved(net, first, [9.0, -3.0]), moved(other, second, [9.0, -3.0])
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert not torch.equal(one["weight"], saved["weight"])


def test_loading_copies_and_changes_no_weight_of_the_network():
    net = line(1.0)
    ema = Ema(net, 0.5)
    saved = {"weight": torch.full((1, 1), 3.0), "bias": torch.full((1,), 4.0)}
    ema.load_state_dict(saved, 2)
    assert (net.weight.item(), net.bias.item()) == (1.0, 1.0)
    ema.update()
    assert (saved["weight"].item(), saved["bias"].item()) == (3.0, 4.0)
    assert ema.state_dict()["bias"].item() == pytest.approx(4 / 13 * 4 + 9 / 13 * 1)


@pytest.mark.parametrize("names", [("weight",), ("weight", "bias", "gain")])
def test_other_names_are_refused_and_nothing_is_loaded(names):
    ema = Ema(line(2.0), 0.99)
    with pytest.raises(KeyError, match="names differ"):
        ema.load_state_dict({name: torch.zeros(1, 1) for name in names}, 5)
    assert ema.num_updates == 0
    assert ema.state_dict()["weight"].item() == 2.0


def test_copy_to_another_network():
    net, other = line(3.0), line(0.0)
    Ema(net, 0.9).copy_to(other)
    assert other.weight.item() == 3.0


def test_it_begins_anew_from_weights_that_were_replaced():
    net = line(0.0)
    ema = Ema(net, 0.9)
    ema.update()
    nn.init.constant_(net.weight, 5.0)
    ema.restart()
    assert (ema.state_dict()["weight"].item(), ema.num_updates) == (5.0, 0)
