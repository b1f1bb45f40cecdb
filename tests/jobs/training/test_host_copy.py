import torch

from cdm_cli.jobs.training.host_copy import ALIGNED, HostCopy, count_bytes


def parts(seed):
    draw = torch.Generator().manual_seed(seed)
    return {
        "model": {"w": torch.randn(3, 5, generator=draw), "b": torch.randn((), generator=draw)},
        "ema": {"w": torch.randn(7, 2, 3, 3, generator=draw).to(memory_format=torch.channels_last)},
        "optimizer": {"step": torch.zeros(0, dtype=torch.int64), "x": torch.arange(9)},
    }


def test_what_is_copied_stays_while_training_goes_on():
    before = parts(0)
    held = HostCopy(before)
    copied = held.copy(before)
    for part, tensors in parts(0).items():
        for name, tensor in tensors.items():
            before[part][name].zero_()
            assert torch.equal(copied[part][name], tensor), (part, name)
            assert copied[part][name].dtype == tensor.dtype


def test_a_later_moment_takes_the_same_memory():
    held = HostCopy(parts(0))
    first = held.copy(parts(0))["model"]["w"].data_ptr()
    second = held.copy(parts(1))["model"]["w"]
    assert second.data_ptr() == first
    assert torch.equal(second, parts(1)["model"]["w"])


def test_its_size_is_that_of_the_tensors_each_aligned():
    sizes = [3 * 5 * 4, 4, 7 * 2 * 9 * 4, 0, 9 * 8]
    assert count_bytes(parts(0)) == sum(-(-size // ALIGNED) * ALIGNED for size in sizes)
