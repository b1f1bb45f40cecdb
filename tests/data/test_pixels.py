"""Mirrors cdm_cli/data/pixels.py: bytes to the range of a network, and back."""

import torch

from cdm_cli.data.pixels import from_uint8, move_channels_last, to_uint8


def test_every_byte_survives_the_network_range():
    x = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(x)), x)
    assert from_uint8(x)[[0, 255]].tolist() == [-1, 1]


def test_to_uint8_rounds_and_clamps():
    x = torch.tensor([-1.5, -1.0, 0.6 / 127.5 - 1, 1.4 / 127.5 - 1, 1.0, 7.0])
    assert to_uint8(x).tolist() == [0, 0, 1, 1, 255, 255]
    assert to_uint8(torch.tensor([0.25], dtype=torch.bfloat16)).item() == 159


def test_channels_move_last():
    x = torch.arange(24).reshape(1, 4, 2, 3)
    last = move_channels_last(x)
    assert last.shape == (1, 2, 3, 4)
    assert last.is_contiguous()
    assert last[0, 1, 2, 3] == x[0, 3, 1, 2]
