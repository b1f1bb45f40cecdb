"""Mirrors cdm_cli/nets/adamw.py: the steps of torch's own class, to the bit."""

import pytest
import torch

from cdm_cli.nets.adamw import AdamW


def drawn(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 3), (7,), (2, 3, 5), (1,))
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs CUDA"))])  # fmt: skip
def test_it_is_adamw_of_torch(device):
    ours, theirs = ([p.detach().to(device).requires_grad_() for p in drawn()] for _ in range(2))
    groups = [
        [{"params": some[:2], "weight_decay": 0.1}, {"params": some[2:], "weight_decay": 0.0}]
        for some in (ours, theirs)
    ]
    mine, known = AdamW(groups[0], lr=1e-2), torch.optim.AdamW(groups[1], lr=1e-2, fused=True)
    for step in range(6):
        lost = torch.tensor(float(step == 3), device=device)
        for p, q, grad in zip(ours, theirs, drawn(step + 1), strict=True):
            p.grad = None if step == 0 and len(p) == 1 else grad.detach().to(device)
            q.grad = p.grad
        for optimizer in (mine, known):
            optimizer.found_inf = lost
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 / (step + 1)
            optimizer.step()
        for p, q in zip(ours, theirs, strict=True):
            assert torch.equal(p, q)
            state, other = mine.state.get(p, {}), known.state.get(q, {})
            assert state.keys() == other.keys()
            assert all(torch.equal(state[name], other[name]) for name in state)
    assert mine.state[ours[0]]["step"].item() == 5, "the one that was lost is not counted"
