"""Mirrors cdm_cli/nets/kernels/fused_norm.py, split_norm.py and their kernels."""

import importlib
import inspect
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from cdm_cli.config import ModelConfig
from cdm_cli.nets import blocks, convolution, normalise
from cdm_cli.nets.kernels import fused_norm, fused_sum, split_norm
from cdm_cli.nets.kernels.dropout import dropout_mask
from cdm_cli.nets.unet import UNet
from tests.nets.drawing import randomised
from tests.nets.interpreting import interpreted

SHAPES = [
    (3, 1024, 256, 0), (2, 256, 512, 512), (2, 64, 1024, 768), (2, 4096, 256, 256), (5, 49, 48, 0),
    (2, 65536, 128, 0), (1, 16384, 256, 128), (3, 5000, 48, 0),
]  # fmt: skip
# rows of gain, rows of added, SiLU, dropout
CASES = list(product((1, 2), (0, 1, 2), (False, True), (0.0, 0.3)))
SEED = 0x9ABC_DEF0


def drawn(B, P, C_x, C_other, rows, added, generator):
    """The operator's tensors, in its order; rows and added: 0, 1, or 2 for B of them."""
    C = C_x + C_other
    rows, added = (B if n == 2 else n for n in (rows, added))
    shapes = [(B, P, C_x), (B, P, C_other), (C, rows), (C, rows), (C, added)]
    return [1 + torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize(("rows", "added", "silu", "dropout"), CASES)
@pytest.mark.parametrize("seeds", [(SEED,), (SEED, 7)])
def test_the_operator_and_its_gradient(rows, added, silu, dropout, seeds, generator):
    """Beside PyTorch's group norm in float64, which knows nothing of our formulas."""
    inputs = drawn(2, 12, 10, 6, rows, added, generator)
    tensors = [tensor.requires_grad_() for tensor in inputs if tensor.numel()]
    x, other, gain, offset, constant = inputs
    unknown = [torch.empty(0)] * 2
    u = torch.cat([x, other], 2).double()
    u = u + constant.t().double()[:, None] if added else u
    normed = F.group_norm(u.transpose(1, 2), 4, eps=split_norm.EPSILON).transpose(1, 2)
    wanted = normed * gain.t().double()[:, None] + offset.t().double()[:, None]
    wanted = F.silu(wanted) if silu else wanted
    seed = torch.tensor(seeds)
    wanted = wanted * dropout_mask(seed, wanted.shape, dropout)
    y, _, _ = fused_norm._forward(*inputs, *unknown, seed, 4, silu, dropout)
    torch.testing.assert_close(y.double(), wanted, atol=1e-5, rtol=1e-5)
    dy = torch.randn(y.shape, generator=generator)
    ours = torch.autograd.grad(y, tensors, dy)
    theirs = torch.autograd.grad(wanted, tensors, dy.double())
    for mine, exact in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, exact, atol=2e-5, rtol=1e-4)


def names_of_operators(y):
    """Return the names of what the gradient of y goes through."""
    found = {y.grad_fn}
    todo = [y.grad_fn]
    for node in todo:
        before = {function for function, _ in node.next_functions if function} - found
        found |= before
        todo += before
    return {node.name() for node in found}


@pytest.mark.parametrize(("channels", "resample"), [(16, False), (40, False), (16, True)])
def test_a_whole_network_is_the_same(channels, resample, monkeypatch, generator):
    """resample: residual blocks change the resolution."""
    config = ModelConfig(
        resolution=8, base_channels=channels, channel_mult=(1, 2), num_res_blocks=1, num_classes=3,
        resblock_updown=resample,
    )  # fmt: skip
    torch.manual_seed(0)
    net = UNet(config, out_channels=6, conditioned=False, embeds_s=False)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(2, 3, 8, 8, generator=generator), torch.tensor([3.0, 70.0])

    def outcome():
        net.zero_grad()
        y = net(x, t, y=torch.tensor([0, 2]))
        y.square().sum().backward()
        return [y.detach(), *(p.grad.clone() for p in net.parameters())]

    plain, forward, known = outcome(), fused_norm._forward, []

    def checked(x, other, gain, offset, added, sums, other_sums, *more):
        known.append(sums.numel() > 0)
        assert (other_sums.numel() > 0) == (known[-1] and other.numel() > 0), "of both or of none"
        for part, of_part in ((x, sums), (other, other_sums)):
            if of_part.numel():
                exact = torch.stack([part.sum(1), part.square().sum(1)])
                torch.testing.assert_close(of_part.sum(2), exact, atol=1e-3, rtol=1e-3)
        return forward(x, other, gain, offset, added, sums, other_sums, *more)

    monkeypatch.setattr(fused_norm, "_forward", checked)
    for module in (blocks, convolution, normalise):
        monkeypatch.setattr(module, "is_fused", lambda x: True)
    fused = outcome()
    assert any(known), "sums of blocks reach norms"
    assert not all(known)
    assert not all(torch.equal(a, b) for a, b in zip(plain, fused, strict=True)), "another path"
    largest = max(float(a.abs().max()) for a in plain)
    for a, b in zip(plain, fused, strict=True):
        torch.testing.assert_close(b, a, atol=1e-5 * largest, rtol=1e-3)
    assert "SliceBackward0" not in names_of_operators(net(x, t, y=torch.tensor([0, 2])))
    net.gradient_checkpointing = True  # sums of an activation pass through it
    assert all(torch.equal(a, b) for a, b in zip(outcome(), fused, strict=True))


@pytest.mark.parametrize("fused", [False, True])
def test_dropout_of_an_image_is_that_of_its_seeds_whatever_the_batch(fused, monkeypatch, generator):
    config = ModelConfig(
        resolution=8, base_channels=16, channel_mult=(1, 2), num_res_blocks=1, dropout=0.4
    )
    net = randomised(UNet(config, out_channels=3, conditioned=False, embeds_s=False))
    for module in (blocks, convolution, normalise):
        monkeypatch.setattr(module, "is_fused", lambda x: fused)
    x, t = torch.randn(3, 3, 8, 8, generator=generator), torch.tensor([3.0, 70.0, 9.0])
    seeds = torch.randint(2**32, (3, net.num_blocks), generator=generator)
    whole = net(x, t, seeds=seeds)
    torch.rand(3)
    rows = slice(1, 3)
    torch.testing.assert_close(net(x[rows], t[rows], seeds=seeds[rows]), whole[rows])
    other = seeds.clone()
    other[1, -1] += 1
    changed = (net(x, t, seeds=other) != whole).flatten(1).any(1)
    assert changed.tolist() == [False, True, False]
    net.gradient_checkpointing = True
    assert torch.equal(net(x, t, seeds=seeds), whole)
    net.eval()
    assert torch.equal(net(x, t, seeds=seeds), net(x, t))


@pytest.mark.parametrize("P", [16, 256, 1024, 4096])
@pytest.mark.parametrize("C", [32, 256, 768, 1280, 1792])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_programs_cover_every_channel_and_no_batch_decides(P, C, dropout):
    plan = fused_norm.launch(P, C, 32, dropout)
    assert C % (plan.groups * plan.each) == 0
    assert plan.pad >= plan.each
    numbers = plan.groups * plan.pad * plan.block_p
    assert numbers <= (fused_norm.RESIDENT if plan.resident else fused_norm.TILE)
    assert plan.warps & (plan.warps - 1) == 0
    assert plan.warps <= 32
    assert plan.resident == (plan.block_p >= P)
    assert plan.pad == plan.each or plan.groups == 1, "the kernel finds channels by adding"


INTERPRETED = """
import torch
from itertools import product
from cdm_cli.nets.kernels import fused_norm as f
from cdm_cli.nets.kernels import fused_sum
from cdm_cli.nets.kernels import split_norm

torch.library.wrap_triton = lambda kernel: kernel
generator = torch.Generator().manual_seed(0)
one, each = torch.tensor([0x9ABC_DEF0]), torch.tensor([0x9ABC_DEF0, 7])
for seed, P in ((one, 70), (each, 16)):  # in the tiles of a GPU
    a, b, c = torch.randn(3, 2, P, 256, generator=generator)
    inputs = (a, b, c, torch.randn(256, generator=generator), 1.0)
    y, sums = fused_sum.launch(*inputs)
    torch.testing.assert_close((y, sums), fused_sum.in_torch(*inputs), atol=3e-5, rtol=1e-4)
    gain = torch.randn(256, 2, generator=generator)
    inputs = (y, y[..., :0], gain, gain, gain[:, :0])
    split_norm.FAST = False
    ours = split_norm.forward(*inputs, sums, sums[..., :0], seed, 32, True, 0.2)
    plain = f.in_torch(*inputs, gain[:0], gain[:0], seed, 32, True, 0.2)
    torch.testing.assert_close(ours, plain, atol=3e-5, rtol=1e-4)

split_norm.FAST, split_norm.SLICE, split_norm.TILE = False, 32, 256
split_norm.GRADIENT_SLICE, split_norm.GRADIENT_TILE = 16, 128
split_norm.FEW_SLICES = 2
fused_sum.SLICE, fused_sum.TILE = 16, 128
f.TILE, f.FEWEST_PIXELS = 64, 1
for (resident, most), (B, P, C_x, C_other, groups), (rows, added, silu, dropout) in product(
    [(16384, 64), (64, 64), (16384, 8)],
    [(2, 30, 24, 16, 5), (2, 20, 24, 0, 8), (1, 40, 48, 0, 2)],
    [(1, 0, True, 0.0), (1, 1, True, 0.4), (2, 1, False, 0.7), (2, 2, True, 0.1)],
):
    if (rows == 1) != (resident == 64) and most == 64 and B > 1 or added == 1 and not C_other:
        continue  # for time; all of them run on CUDA
    if most == 8 and (rows, added) in ((1, 1), (2, 1)):
        continue  # what they add is read as in tiles
    f.RESIDENT, f.MOST_PIXELS = resident, most  # all at once, in tiles, by many programs
    C = C_x + C_other
    x, other = (1 + torch.randn(B, P, c, generator=generator) for c in (C_x, C_other))
    gain, offset = torch.randn(2, C, min(rows, B), generator=generator)
    constant = torch.randn(C, min(added, B), generator=generator)
    dy = torch.randn(B, P, C, generator=generator)
    inputs = (x, other, gain, offset, constant)
    unknown = (gain[:0], gain[:0])
    known = [fused_sum.in_torch(z, 0 * z, z[..., :0], 0 * z[0, 0], 1.0)[1] for z in (x, other)]
    more = each[:B] if gain.shape[1] > 1 else one, groups, silu, dropout
    y, mean, rstd = f.in_torch(*inputs, *unknown, *more)
    for sums in (unknown, known) if most == 8 else (unknown,):
        for ours, plain in zip(f.launch_forward(*inputs, *sums, *more), (y, mean, rstd)):
            torch.testing.assert_close(ours, plain, atol=3e-5, rtol=1e-4)
    if most == 8 and not added:  # they are not taken a second time
        _, twice, _ = f.launch_forward(*inputs, *(2 * s for s in known), *more)
        torch.testing.assert_close(twice, 2 * mean)
    inputs = (*inputs, mean, rstd, dy, *more)
    for ours, plain in zip(f.launch_backward(*inputs), f.gradients_in_torch(*inputs)):
        torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-3)

for (B, P, C), three, factor in product([(2, 30, 24), (1, 40, 48), (2, 9, 16)], (0, 1), (1.0, 0.5)):
    a, b, c = torch.randn(3, B, P, C, generator=generator)
    inputs = (a, b, c if three else c[..., :0], torch.randn(C, generator=generator), factor)
    for ours, plain in zip(fused_sum.launch(*inputs), fused_sum.in_torch(*inputs)):
        torch.testing.assert_close(ours, plain, atol=3e-5, rtol=1e-4)

fused_sum._summed.in_torch = fused_sum.launch
x, bias = torch.randn(2, 2, 8, 5, 6, generator=generator), torch.randn(8, 2, generator=generator)
y, _ = fused_sum.add_and_sum(list(x), bias[:, 0], 1.0)
torch.testing.assert_close(y, x.sum(0) + bias[:, :1, None])

f._forward.in_torch = f.launch_forward
f._backward.in_torch = f.launch_backward
for f.MOST_PIXELS in (64, 8):  # an operator may not return views
    x = torch.randn(2, 8, 5, 6, generator=generator, requires_grad=True)
    gain, offset = torch.randn(8, 2, generator=generator).t()
    y = f.normalise(x, 4, gain, offset)
    plain = torch.nn.functional.group_norm(x, 4, gain, offset)
    dy = torch.randn(y.shape, generator=generator)
    torch.testing.assert_close(y, plain, atol=1e-5, rtol=1e-4)
    (ours,), (theirs,) = (torch.autograd.grad(z, x, dy) for z in (y, plain))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
print("the same")
"""


def functions_of(kernel):
    """Return what a kernel calls of ours, itself among it, as the compiler copies it."""
    found = [kernel]
    for function in found:
        names = inspect.getclosurevars(function.fn).globals.values()
        found += [f for f in names if isinstance(f, type(kernel)) and f not in found]
    return found


@pytest.mark.parametrize("module", ["norm_kernel", "split_kernel", "phases_kernel"])
def test_the_compiler_can_copy_the_kernels(module):
    """It copies functions by their names, so a module's attribute would not be found."""
    pytest.importorskip("triton")
    module = importlib.import_module(f"cdm_cli.nets.kernels.{module}")
    kernels = [value for name, value in vars(module).items() if name.endswith("_kernel")]
    assert len(kernels) >= 2
    for function in {f for kernel in kernels for f in functions_of(kernel)}:
        modules = filter(inspect.ismodule, inspect.getclosurevars(function.fn).globals.values())
        assert {m.__name__ for m in modules} <= {"triton", "triton.language"}


def test_the_kernels_as_triton_interprets_them():
    assert interpreted(INTERPRETED) == "the same"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels run on CUDA")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("rows", "added", "silu", "dropout"), CASES)
def test_the_kernels_on_cuda(shape, rows, added, silu, dropout, generator):
    """bfloat16 in and out; the formulas run in float32 on the same bfloat16 numbers."""
    groups, seed = 16, torch.tensor([SEED]).cuda()
    if rows == 2:  # of each image
        seed = torch.arange(shape[0]).cuda() * 1_000_003
    inputs = [c.cuda() for c in drawn(*shape, rows, added, generator)]
    inputs[:2] = (x.bfloat16() for x in inputs[:2])
    plain = [x.float() for x in inputs[:2]] + inputs[2:]
    unknown = [plain[2][:0]] * 2
    y, mean, rstd = fused_norm.in_torch(*plain, *unknown, seed, groups, silu, dropout)
    known = [
        fused_sum.in_torch(z, 0 * z, z[..., :0], 0 * z[0, 0], 1.0)[1].cuda() for z in plain[:2]
    ]
    for sums in (unknown, known):
        ours = fused_norm._forward(*inputs, *sums, seed, groups, silu, dropout)
        for one, exact in zip(ours, (y, mean, rstd), strict=True):
            torch.testing.assert_close(one.float(), exact, atol=1e-2, rtol=1e-2)
    dy = torch.randn(y.shape, generator=generator).cuda().bfloat16()
    more = seed, groups, silu, dropout
    wanted = fused_norm.gradients_in_torch(*plain, mean, rstd, dy.float(), *more)
    ours = fused_norm._backward(*inputs, mean, rstd, dy, *more)
    for one, exact in zip(ours, wanted, strict=True):
        spread = max(1.0, float(exact.abs().max()) if exact.numel() else 1.0)
        torch.testing.assert_close(one.float(), exact, atol=1e-2 * spread, rtol=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled programs run on CUDA")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_network_calls_the_same_kernels(generator):
    """An argument that the compiler takes for float64 would make all arithmetic float64."""
    x = torch.randn(2, 64, 16, 16, generator=generator).cuda().bfloat16().requires_grad_()
    gain, offset = torch.randn(2, 64, 2, generator=generator).cuda()

    def normed(x):
        y = fused_norm.normalise(x, 8, gain, offset, silu=True)
        y, sums = fused_sum.add_and_sum([x, y], gain[:, 0], 1.0)
        return fused_norm.normalise(y, 8, gain, offset, sums=(sums, None), silu=True)

    plain, compiled = normed(x), torch.compile(normed, dynamic=False)(x)
    torch.testing.assert_close(compiled, plain, rtol=0, atol=0)
    (wanted,) = torch.autograd.grad(plain.float().square().sum(), x)
    (found,) = torch.autograd.grad(compiled.float().square().sum(), x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled programs run on CUDA")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("side", [16, 128])
def test_the_way_back_drops_what_was_dropped_on_cuda(compiled, side, generator):
    x = torch.randn(2, 64, side, side, generator=generator).cuda().bfloat16().requires_grad_()
    gain, offset = torch.randn(2, 64, 2, generator=generator).cuda()
    dy = torch.randn(x.shape, generator=generator).cuda().bfloat16()

    def normed(x, dropout):
        return fused_norm.normalise(x, 8, gain, offset, silu=True, dropout=dropout)

    whole = normed(x, 0.0)
    call = torch.compile(normed, dynamic=False) if compiled else normed
    masks = []
    for _ in range(2):
        y = call(x, 0.25)
        mask = (y != 0).float() / 0.75
        torch.testing.assert_close(y.float(), whole.float() * mask, rtol=2e-2, atol=1e-2)
        (found,) = torch.autograd.grad(y, x, dy)
        (wanted,) = torch.autograd.grad(whole, x, (dy * mask).bfloat16(), retain_graph=True)
        torch.testing.assert_close(found.float(), wanted.float(), rtol=2e-2, atol=2e-2)
        masks.append(mask)
    assert not torch.equal(*masks)
