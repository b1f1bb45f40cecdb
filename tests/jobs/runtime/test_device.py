"""Mirrors cdm_cli/jobs/runtime/device.py: what makes a device compute the same bits again."""

import contextlib

import pytest
import torch

from cdm_cli.jobs.runtime import device as devices
from cdm_cli.jobs.runtime.device import describe_build, order_gradients
from cdm_cli.jobs.training import gradients
from tests.trained import train, write_data


def test_another_version_of_cdm_is_another_build(monkeypatch):
    """Its kernels may round otherwise, and `cdm verify --replay` would blame the store."""
    here = describe_build(torch.device("cpu"))
    assert torch.__version__ in here
    monkeypatch.setattr(devices, "__version__", "99.0.0")
    assert describe_build(torch.device("cpu")) != here


def modes():
    filled = torch.utils.deterministic.fill_uninitialized_memory
    return torch.are_deterministic_algorithms_enabled(), filled


@pytest.mark.parametrize(("name", "inside"), [("cuda", (True, False)), ("cpu", (False, True))])
def test_gradients_are_added_in_one_order_on_cuda_and_the_mode_ends(name, inside):
    assert modes() == (False, True)
    with contextlib.suppress(RuntimeError), order_gradients(torch.device(name)):
        assert modes() == inside
        raise RuntimeError
    assert modes() == (False, True)


def test_every_step_of_training_computes_its_gradients_so(tmp_path, monkeypatch):
    seen = []

    def entered(device):
        seen.append(device.type)
        return devices.order_gradients(device)

    monkeypatch.setattr(gradients, "order_gradients", entered)
    write_data(tmp_path / "data.h5")
    train(tmp_path, steps=3)
    assert seen == ["cpu"] * 3
