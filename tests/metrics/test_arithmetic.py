"""Mirrors cdm_cli/metrics/arithmetic.py."""

import pytest
import torch

from cdm_cli.metrics.arithmetic import use_full_float32


def test_tf32_is_off_inside_and_as_before_outside():
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = True
    with use_full_float32():
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.is_grad_enabled()
    with pytest.raises(KeyError), use_full_float32():
        raise KeyError
    assert matmul.allow_tf32
    matmul.allow_tf32 = before
    assert torch.is_grad_enabled()
