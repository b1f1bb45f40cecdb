"""Mirrors cdm_cli/nets/kernels/operators.py: what the compiler sees, and that none is loaded."""

import subprocess
import sys

import pytest
import torch

from cdm_cli.nets.kernels import operators
from cdm_cli.nets.kernels.operators import Operator, launcher, show_to_compiler

WITHOUT = """
import sys
import pytest
import torch
from cdm_cli.nets.kernels import fused_norm, fused_sum, phases
x, c = torch.randn(1, 8, 2, 2, requires_grad=True), torch.ones(8)
y = fused_norm.normalise(x, 4, c, c)
torch.testing.assert_close(y, torch.nn.functional.group_norm(x, 4, c, c))
fused_sum.add_and_sum([y, y], c, 1.0)[0].sum()
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""


def test_no_compiler_is_loaded_for_operators_that_run_as_they_are():
    """It takes two to five seconds of every start."""
    told = subprocess.run([sys.executable, "-c", WITHOUT], stdout=subprocess.PIPE, check=True)
    assert told.stdout.decode().strip() == "[]"


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_the_compiler_sees_through_an_operator_once_it_is_shown(monkeypatch):
    monkeypatch.setattr(operators, "_unseen", [])
    monkeypatch.setattr(torch.compiler.config, "cache_key_tag", "")

    def launch(x: torch.Tensor) -> torch.Tensor:
        return x.sin().cos()

    shown = Operator("shown_in_a_test", launch, launch)
    seen = []

    def backend(graph, inputs):
        seen.append([str(node.target) for node in graph.graph.nodes])
        return graph

    from torch._dynamo.backends.common import aot_autograd

    def compiled():
        torch._dynamo.reset()
        return torch.compile(shown, backend=aot_autograd(fw_compiler=backend), fullgraph=True)

    x = torch.randn(3)
    opaque = compiled()(x)
    show_to_compiler()
    assert torch.equal(compiled()(x), opaque)
    assert any("shown_in_a_test" in name for name in seen[0])
    assert [name for name in seen[1] if "aten" in name] == ["aten.sin.default", "aten.cos.default"]
    assert "cdm " in torch.compiler.config.cache_key_tag


def test_a_kernel_is_itself_where_it_runs_and_wrapped_where_it_is_traced(monkeypatch):
    monkeypatch.setattr(operators, "_unseen", [])
    monkeypatch.setattr(torch.library, "wrap_triton", lambda kernel: ("wrapped", kernel))
    given = []

    def launch(x: torch.Tensor) -> torch.Tensor:
        given.append(launcher("kernel"))
        return x.clone()

    made = Operator("launched_in_a_test", launch, launch)
    made.in_torch = made._launch  # as on CUDA
    made(torch.zeros(3))
    made(torch.zeros(3, device="meta"))
    assert given == ["kernel", ("wrapped", "kernel")]
