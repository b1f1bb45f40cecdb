"""Mirrors cdm_cli/jobs/sampling/ready.py: a batch that nobody asked for is one that fits."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from cdm_cli.errors import MemoryFloorError
from cdm_cli.jobs.runtime import host_memory
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sampling import ready as module
from cdm_cli.jobs.sampling.numerics import choose_numerics
from cdm_cli.jobs.sampling.ready import ReadyStage, halve_until_fits, make_stage_ready
from cdm_cli.jobs.sampling.sample import plan_work, run
from cdm_cli.options.sampling import Compute, SampleOptions
from tests.asking import as_typed
from tests.tiny import Told, base_config, stage_of, write_stage

CONFIG, CPU = base_config(), torch.device("cpu")
OPTIONS = as_typed(
    SampleOptions, num=150, keep_s=(5,), out="lowres.h5", compute=Compute(device="cpu")
)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stage(tmp_path / "runs/base", CONFIG)
    return tmp_path


@pytest.fixture
def ready():
    chosen = choose_numerics(CONFIG, Session(CPU), 100)
    return ReadyStage(stage_of(CONFIG), replace(chosen, batch_size=50))


@pytest.fixture
def limited(monkeypatch):
    """Let a device have memory for so many images; return the sizes that were tried."""
    sizes = []

    def limit(most):
        real = module.generate

        def generate(*words, batch_size, watch, **more):
            sizes.append(batch_size)
            made = real(*words, batch_size=batch_size, watch=watch, **more)
            if batch_size > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return made

        monkeypatch.setattr(module, "generate", generate)
        return sizes

    return limit


class Crowded(World):
    """One of two processes, of which the other's device has room for 13 images."""

    def __init__(self, sizes):
        super().__init__(size=2)
        object.__setattr__(self, "_sizes", sizes)

    def agree(self, flag):
        return flag and self._sizes[-1] <= 13


def test_a_batch_is_halved_until_it_fits(ready, limited):
    sizes, told = limited(20), Told()
    found = halve_until_fits(ready, plan_work(OPTIONS), Session(CPU, report=told))
    assert sizes == [50, 25, 13]
    assert found.numerics == replace(ready.numerics, batch_size=13)
    assert told.lines == [f"out of device memory: now {n} images at a time" for n in (25, 13)]


def test_all_processes_take_what_fits_on_each(ready, limited):
    sizes = limited(30)
    found = halve_until_fits(ready, plan_work(OPTIONS), Session(CPU, world=Crowded(sizes)))
    assert (sizes, found.numerics.batch_size) == ([50, 25, 13], 13)


def test_one_image_that_does_not_fit_is_told(ready, limited):
    limited(0)
    with pytest.raises(MemoryFloorError, match="one image at a time does not fit"):
        halve_until_fits(ready, plan_work(OPTIONS), Session(CPU))


def test_three_evaluations_of_the_plain_network_are_tried(ready, limited, monkeypatch):
    """Compiled, each size would take minutes; the second one is recorded, the third replayed."""
    net, seen = ready.stage.net, []
    compiled = ready.stage.with_denoise(lambda *_: pytest.fail("the compiled network was tried"))
    real = net.denoise
    monkeypatch.setattr(net, "denoise", lambda x, *more: seen.append(len(x)) or real(x, *more))
    limited(30)
    found = halve_until_fits(replace(ready, stage=compiled), plan_work(OPTIONS), Session(CPU))
    assert seen == [50] * 3 + [25] * 3
    assert found.stage is compiled


@pytest.mark.parametrize("fails", [None, torch.OutOfMemoryError, ZeroDivisionError])
def test_on_cuda_a_copy_is_recorded_and_its_memory_given_back(fails, ready, monkeypatch):
    stage, told = ready.stage, []

    def record(stage):
        told.append(stage.denoise)
        return stage.with_denoise("recorded", lambda: told.append("released"))

    def generate(stage, *_, **__):
        told.append(stage.denoise)
        if fails:
            raise fails

    monkeypatch.setattr(type(stage), "device", torch.device("cuda"))
    monkeypatch.setattr(module, "record_kernels", record)
    monkeypatch.setattr(module, "generate", generate)
    with pytest.raises(ZeroDivisionError) if fails is ZeroDivisionError else nullcontext():
        assert module._does_fit(stage, plan_work(OPTIONS), 50) is (fails is None)
    assert told == [stage.net.denoise, "recorded", "released"]
    assert stage.denoise == stage.net.denoise


def test_another_part_is_told_what_it_needs_for_the_same_bits(ready, limited):
    limited(30)
    told = Told()
    part = replace(OPTIONS, part="2/2")
    halve_until_fits(ready, plan_work(part), Session(CPU, report=told))
    assert "for the same bits, other parts need --batch-size 25" in told.lines[0]


@pytest.mark.parametrize(
    ("device", "batch_size", "begun", "tried"),
    [
        ("cuda", None, False, True),
        ("cpu", None, False, False),
        ("cuda", 50, False, False),
        ("cuda", None, True, False),
    ],
)
def test_it_is_tried_where_nothing_else_decides(
    device, batch_size, begun, tried, ready, monkeypatch
):
    if begun:
        run(OPTIONS, Told())
    calls = []
    monkeypatch.setattr(module, "choose_numerics", lambda *_: ready.numerics)
    monkeypatch.setattr(module, "check_same_numerics", lambda *_: None)
    monkeypatch.setattr(module, "load_fast_stage", lambda *_: ready.stage)
    monkeypatch.setattr(module, "halve_until_fits", lambda ready, *_: calls.append(1) or ready)
    session = Session(torch.device(device), Compute(batch_size=batch_size))
    make_stage_ready(plan_work(OPTIONS), OPTIONS.out, session)
    assert bool(calls) is tried


@pytest.mark.parametrize(
    ("free", "said"),
    [(2**40, ""), (101 * 2**20, "--batch-size 4 takes less"), (2**20, "kills what takes more")],
)
def test_what_the_system_may_kill_says_so_first(free, said, monkeypatch):
    monkeypatch.setattr(host_memory, "measure_free_memory", lambda: free)
    monkeypatch.setattr(module, "estimate_image_bytes", lambda _: 2**20 // 5)
    told = Told()
    run(OPTIONS, told)
    lines = [line for line in told.lines if "of memory" in line]
    assert len(lines) == bool(said)
    assert all(line.startswith("an evaluation of the network may take up to") for line in lines)
    assert all(line.endswith(said) for line in lines)
