"""Mirrors cdm_cli/cascade/fast.py: the fast form computes the same function."""

import os
import subprocess
import sys

import pytest
import torch

from cdm_cli.cascade import fast as fast_form
from cdm_cli.cascade.fast import is_worth_compiling, keep_programs, make_fast
from cdm_cli.cascade.stage import Stage, build_net
from cdm_cli.nets.convolution import EnlargingConv
from cdm_cli.presets import preset


def stage(precision):
    torch.manual_seed(0)
    config = preset("tiny-sr8-16").stage
    net = build_net(config)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return Stage(config, (), net, precision=precision)


def evaluated(stage, generator):
    x_t = torch.randn(4, 3, 16, 16, generator=generator)
    z_s = torch.randn(4, 3, 8, 8, generator=generator)
    y, s = torch.arange(4), torch.tensor([0, 10, 500, 4000])
    with torch.inference_mode():
        return stage.eps_theta(stage.schedule, y, z_s, s)(x_t, torch.tensor([1, 7, 900, 4000]))


def test_fp32_is_untouched(generator):
    plain = evaluated(stage("fp32"), generator)
    fast = evaluated(make_fast(stage("fp32"), compiled=False), generator.manual_seed(0))
    torch.testing.assert_close(fast, plain, rtol=0, atol=0)


def test_bf16_differs_by_rounding_alone(generator):
    plain = evaluated(stage("fp32"), generator)
    fast = evaluated(make_fast(stage("bf16"), compiled=False), generator.manual_seed(0))
    relative = ((fast - plain).norm() / plain.norm()).item()
    assert 0 < relative < 0.02


def test_embeddings_norms_and_weights_that_are_added_keep_float32():
    net = make_fast(stage("bf16"), compiled=False).net
    added = [name for name, m in net.named_modules() if isinstance(m, EnlargingConv)]
    assert added
    kept = {name.split(".")[0] for name, p in net.named_parameters() if "embed_" in name}
    assert kept == {"embed_t", "embed_s", "embed_y"}
    for name, parameter in net.named_parameters():
        fp32 = "embed_" in name or "norm" in name or name.rpartition(".")[0] in added
        assert parameter.dtype == (torch.float32 if fp32 else torch.bfloat16), name


def test_on_cuda_what_was_compiled_is_recorded_in_a_copy(generator, monkeypatch):
    """Here every call is launched, as where no graph fits."""
    plain, compiled, told = stage("fp32"), [], []

    class Launched(fast_form.Recorded):
        def __call__(self, *inputs):
            told.append(len(inputs))
            return self._function(*inputs)

        def forget(self):
            told.append("forgotten")

    before = evaluated(plain, generator)
    monkeypatch.setattr(Stage, "device", torch.device("cuda"))
    monkeypatch.setattr(fast_form, "_prepare_compiling", lambda: None)
    monkeypatch.setattr(fast_form, "Recorded", Launched)
    monkeypatch.setattr(torch, "compile", lambda f, dynamic: lambda *a: compiled.append(f) or f(*a))
    made = make_fast(plain, compiled=True)
    monkeypatch.undo()
    torch.testing.assert_close(evaluated(made, generator.manual_seed(0)), before)
    assert compiled == [plain.net.denoise]
    made.release()
    assert told == ["forgotten", 3, "forgotten"]
    assert plain.denoise == plain.net.denoise


def test_a_long_run_on_a_gpu_is_worth_compiling():
    config, cuda = preset("cifar-base16").stage, torch.device("cuda")
    assert is_worth_compiling(config, cuda, 900_000_000)  # 4.47 GFLOPs each
    assert not is_worth_compiling(config, cuda, 890_000_000)
    assert not is_worth_compiling(config, torch.device("cpu"), 900_000_000)


def test_of_a_short_run_nothing_is_counted(monkeypatch):
    def counted(net):
        raise AssertionError("operations were counted, which loads the compiler")

    monkeypatch.setattr(fast_form, "count_flops_per_image", counted)
    config = preset("cifar-sr16-32").stage
    assert not is_worth_compiling(config, torch.device("cuda"), 2000 * 25)


@pytest.mark.parametrize("named", [None, "elsewhere"])
def test_compiled_programs_are_kept_for_the_user_unless_told_where(named, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    if named:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", named)
    keep_programs()
    wanted = named or str(tmp_path / "cdm" / "compiled")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == wanted


def test_a_home_that_cannot_be_written_keeps_the_default(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    keep_programs()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


TRACED = """
import torch
from cdm_cli.nets import blocks, normalise
from cdm_cli.nets.kernels import fused_norm
from cdm_cli.nets.kernels import fused_sum
from tests.nets.drawing import inputs, tiny

def copies(plain):
    return lambda *a: tuple(tensor.clone() for tensor in plain(*a))

for operator, plain in [
    (fused_norm._forward, fused_norm.in_torch),
    (fused_norm._backward, fused_norm.gradients_in_torch),
    (fused_sum._summed, fused_sum.in_torch),
]:
    operator.in_torch, operator.launch = copies(plain), plain
blocks.is_fused = normalise.is_fused = lambda x: True

def gradients(f, net):
    net.zero_grad()
    torch.manual_seed(0)
    f(*inputs(net)).square().mean().backward()
    return [p.grad.clone() for p in net.parameters()]

small = tiny(dropout=0.3, channel_mult=(1,), attention_resolutions=(16,))
small.gradient_checkpointing = True
for net in (tiny(dropout=0.3), small):
    plain = gradients(net, net)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(gradients(compiled, net), plain, atol=1e-6, rtol=1e-5)
print("the same")
"""


def test_the_compiler_traces_what_runs_on_a_gpu_and_its_gradients():
    """In a process of its own, where operators have other code, which the compiler does not see."""
    answer = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True)
    assert answer.stdout.strip() == "the same", answer.stderr
