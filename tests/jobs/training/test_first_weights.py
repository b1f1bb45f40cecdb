"""Mirrors cdm_cli/jobs/training/first_weights.py: the numbers of a seed, whoever draws them."""

import threading
import time
from contextlib import ExitStack

import pytest
import torch

from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.cascade.stage import build_net
from cdm_cli.config import ClassifierConfig
from cdm_cli.jobs.training import first_weights
from cdm_cli.jobs.training.first_weights import (
    FirstWeights,
    GivenUpError,
    begin_net,
    draw_net,
    is_worth_a_thread,
)
from cdm_cli.nets.classifier import Classifier
from cdm_cli.presets import preset
from tests.tiny import base_config, sr_config

CLASSIFIER = ClassifierConfig(
    resolution=8, base_channels=8, channel_mult=(1,), num_res_blocks=1, num_classes=3
)
CONFIGS = [base_config(), sr_config(), preset("tiny-sr8-16").stage, CLASSIFIER]


def by_the_default_generator(config, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(config) if isinstance(config, ClassifierConfig) else build_net(config)


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("config", CONFIGS)
def test_they_are_those_of_the_default_generator_which_is_left_alone(config):
    before = torch.get_rng_state()
    drawn = draw_net(config, 7)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(drawn, by_the_default_generator(config, 7))
    assert not same(drawn, draw_net(config, 8))


def test_nothing_that_is_drawn_meanwhile_changes_them():
    config = preset("tiny-base16").stage
    weights = FirstWeights(config, 7)
    while not weights._drawn[0].done():
        torch.manual_seed(1)
        torch.rand(5)
    net = build_empty_net(config).to_empty(device="cpu")
    weights.fill(net)
    weights.give_up()
    assert same(net, by_the_default_generator(config, 7))


def test_what_ends_the_thread_is_raised_where_weights_are_needed(monkeypatch):
    def fail(config):
        raise MemoryError

    monkeypatch.setattr(first_weights, "build_net", fail)
    weights = FirstWeights(base_config(), 0)
    with pytest.raises(MemoryError):
        weights.fill(build_empty_net(base_config()))
    weights.give_up()


def test_a_thread_that_is_given_up_ends_before_its_next_layer():
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(GivenUpError):
        draw_net(base_config(), 0, given_up)


def test_the_stack_gives_the_thread_up(monkeypatch):
    layers = []

    def build(config):
        while True:
            layers.append(torch.nn.Linear(2, 2))
            time.sleep(0.001)

    monkeypatch.setattr(first_weights, "build_net", build)
    monkeypatch.setattr(first_weights, "is_worth_a_thread", lambda *_: True)
    with ExitStack() as stack:
        begin_net(base_config(), 0, torch.device("cpu"), stack)
    seen = len(layers)
    time.sleep(0.01)
    assert len(layers) == seen


def test_weights_are_given_up_once_or_twice():
    weights = FirstWeights(base_config(), 0)
    weights.give_up()
    weights.give_up()


def test_large_networks_on_a_gpu_are_worth_a_thread():
    large, small = preset("imagenet-base32").stage, preset("cifar-base16").stage
    assert is_worth_a_thread(large, torch.device("cuda", 0))
    assert not is_worth_a_thread(small, torch.device("cuda", 0))
    assert not is_worth_a_thread(large, torch.device("cpu"))
