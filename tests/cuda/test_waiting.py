"""Nothing in a step of training or of a sampler makes the processor wait for the device."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from cdm_cli.data.batches import TrainBatch
from cdm_cli.diffusion.noise import Noise
from cdm_cli.diffusion.samplers import bind
from cdm_cli.diffusion.schedules import from_config, spread_schedule
from cdm_cli.jobs.cas.step import Fit
from cdm_cli.jobs.judging.images import take_queue_of_caller
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sweep.judges import queue_apart
from cdm_cli.jobs.training.objective import build_objective
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.plans import TrainingConfig
from cdm_cli.presets import COSINE, preset
from tests.cuda.rig import needs
from tests.jobs.cas.test_step import recipe

B = 32


@contextmanager
def no_waiting():
    """Let torch raise an error wherever it would wait for the device."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a prototype feature, it says
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def uint8(side):
    return torch.randint(0, 256, (B, 3, side, side), dtype=torch.uint8, device="cuda")


@needs(1)
@pytest.mark.parametrize("name", ["tiny-base8", "tiny-sr8-16", "tiny-classifier"])
@pytest.mark.parametrize("micro_batch", [None, 16])
def test_training(name, micro_batch):
    device, stage = torch.device("cuda"), preset(name).stage
    training = TrainingConfig(batch_size=B, micro_batch=micro_batch, lr=1e-3)
    classes = [f"{k}" for k in range(4)]
    if name == "tiny-classifier":
        stage = stage.model_copy(update={"num_classes": 4, "resolution": 16})
    objective = build_objective(stage, classes, training, device, "bf16")
    trainer = Trainer(objective, training, Session(device), cosine=name == "tiny-classifier")
    sides = {"tiny-base8": (8, 0), "tiny-sr8-16": (16, 8), "tiny-classifier": (16, 0)}[name]
    y = torch.arange(B, device="cuda") % 4
    batch = TrainBatch(uint8(sides[0]), uint8(sides[1]) if sides[1] else None, y)
    for step in (1, 2, 3):  # kernels are chosen and recorded
        trainer.step(step, batch)
    with no_waiting():
        trainer.step(4, batch)
    assert trainer.read().skipped == 0


@needs(1)
def test_training_for_cas():
    device = torch.device("cuda")
    fit = Fit(recipe(batch_size=B, norm_images=B), device, World())
    y = torch.arange(B, device="cuda")
    batch = TrainBatch(uint8(8), None, y % 3)
    for step in (1, 2):
        fit.step(step, batch)
    with no_waiting():
        fit.step(3, batch)
    fit.read()
    assert fit.skipped == 0


@needs(1)
@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm-solver++", "sde-dpm-solver++"])
def test_a_sampler(sampler):
    """Its arithmetic and noise; the network is another test's."""
    noise = Noise(0, "base8", torch.arange(B, device="cuda"))
    schedule = spread_schedule(from_config(COSINE), 6, sampler=sampler).to("cuda")
    steps = bind(sampler, randn_like=noise)(
        lambda x_t, t: 0.1 * x_t, schedule, torch.randn(B, 3, 8, 8, device="cuda")
    )
    next(steps)
    with no_waiting():
        for _ in steps:
            pass


@needs(1)
def test_a_judge_waits_for_no_evaluation_that_is_queued_meanwhile():
    """Nor does the thread that reads its images, whose copies come in the order of the judge."""
    device = torch.device("cuda")

    def judged():
        with ThreadPoolExecutor(1, initializer=take_queue_of_caller(device)) as reader:
            x = reader.submit(lambda: torch.arange(1000).pin_memory().to(device, non_blocking=True))
            return float(x.result().sum())

    with ThreadPoolExecutor(1, initializer=lambda: queue_apart(device)) as judge:
        judge.submit(judged).result()
        torch.cuda._sleep(4 * 10**9)  # cycles: two seconds
        evaluated = torch.cuda.Event()
        evaluated.record()
        assert judge.submit(judged).result() == 499_500
        assert not evaluated.query()
    torch.cuda.synchronize()
