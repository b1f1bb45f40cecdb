"""The samples that a stage is judged by, in training or afterwards: their inputs, their drawing.

A base stage shows every class alike. A super-resolution stage enlarges real images, val where
there is one, at one s: non-truncated, since a real image has no reverse process of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.cascade.conditioning import check_s, find_nearest_s
from cdm_cli.cascade.fast import make_fast
from cdm_cli.cascade.generate import Steps, as_images, generate
from cdm_cli.cascade.stage import Stage
from cdm_cli.config import StageConfig
from cdm_cli.data.store import Store
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.runtime.identity import list_chain_fields
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sampling.classes import assign_labels
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.sample import UNLABELLED, make_inputs
from cdm_cli.jobs.sampling.schedule_file import choose_chain
from cdm_cli.jobs.sampling.store_images import StoreImages, choose_part
from cdm_cli.jobs.sampling.upsample import Conditioner
from cdm_cli.jobs.sampling.work import MakeInputs
from cdm_cli.nets.ema import Ema
from cdm_cli.nets.memory import halve
from cdm_cli.nets.unet import UNet
from cdm_cli.options.sampling import Sampling
from cdm_cli.units import format_count


@dataclass(frozen=True)
class Probe:
    """num samples of one stage, fixed before any weights. labels: int64 [num].

    make_inputs: gives the inputs of a range of places. lowres: the split that they are enlarged
    from, with s, or "generated" beside the digest of that store; "" and None for a base stage.
    shown: ids of the classes, where not all are.
    """

    config: StageConfig
    chain: Chain
    num: int
    make_inputs: MakeInputs
    labels: np.ndarray
    classes: tuple[str, ...]
    seed: int
    s: int | None = None
    lowres: str = ""
    lowres_digest: str = ""
    shown: tuple[int, ...] = ()

    @property
    def evaluations(self) -> int:
        """Network evaluations of all samples together."""
        return self.num * self.chain.evaluations

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for two scores to compare, besides the judge's convention."""
        fields = list_chain_fields(self.config, self.chain, self.seed)
        some = {"classes": list(self.shown)} if self.shown else {}
        which = {"lowres_digest": self.lowres_digest} if self.lowres_digest else {}
        return {**fields, "num": self.num, **some, **self._list_inputs(), **which}

    @property
    def given_s(self) -> list[int]:
        """The s that a super-resolution stage is given; none for a base stage."""
        return [] if self.s is None else [self.s]

    def list_settings(self) -> dict[str, Any]:
        """Return how the samples are made, as it is shown."""
        chain = self.chain
        return {
            "num": self.num,
            "sampler": chain.sampler,
            "steps": chain.schedule.T,
            **({"schedule": "searched"} if chain.searched else {}),
            **({"restart_from": chain.restart_from} if chain.restart_from else {}),
            "variance": chain.variance if chain.sampler == "ancestral" else "",
            "clip": chain.clip,
            "seed": self.seed,
            **self._list_inputs(),
        }

    def _list_inputs(self) -> dict[str, Any]:
        return {} if self.s is None else {"s": self.s, "lowres": self.lowres}


def choose_s(config: StageConfig, s: int | None, flag: str) -> int | None:
    """Return the s that a stage is probed at: by default a quarter of its range, None for a base.

    Raises UsageError naming the flag where a base stage is given one, or s is none of its times.
    """
    conditioning = config.conditioning
    if conditioning is None:
        if s is not None:
            raise UsageError(f"{flag}: a base stage has no s", next=f"leave out {flag}")
        return None
    return check_s(config, find_nearest_s(conditioning, None) if s is None else s)


def make_base_probe(
    header: Header, num: int, sampling: Sampling, shown: tuple[int, ...] | None = None
) -> Probe:
    """Fix num samples of a base stage, sample i of class shown[i % K]; None: all it has seen."""
    conditional = header.config.model.num_classes > 0
    classes = header.classes if conditional else (UNLABELLED,)
    if not conditional:
        shown = (0,)
    elif shown is None:
        shown = header.shown
    return Probe(
        config=header.config,
        chain=choose_chain(header, sampling),
        num=num,
        make_inputs=lambda places: make_inputs(places, shown),
        labels=assign_labels(np.arange(num), shown),
        classes=classes,
        seed=sampling.seed,
        shown=shown if len(shown) < len(classes) else (),
    )


def make_sr_probe(
    header: Header, store: Store, rows: np.ndarray, s: int, sampling: Sampling,
    split: str | None = None,
) -> Probe:  # fmt: skip
    """Fix the samples of a super-resolution stage: the images at rows of a part, enlarged at s."""
    name, part = choose_part(store, split)
    lowres = StoreImages(part, header.conditioning.resolution, rows)
    conditioner = Conditioner(header, lowres, s, "non-truncated", sampling.seed)
    return Probe(
        config=header.config,
        chain=choose_chain(header, sampling),
        num=len(rows),
        make_inputs=conditioner.make_inputs,
        labels=np.asarray(part.labels[rows]),
        classes=tuple(store.classes),
        seed=sampling.seed,
        s=s,
        lowres=name or "all",
    )


def build_averaged(stage: Stage, ema: Ema, *, compiled: bool = False) -> Stage:
    """Return a stage of its own with the averaged weights; the one in training is not touched."""
    net = build_empty_net(stage.config)
    assert isinstance(net, UNet)
    ema.copy_to(net.to_empty(device=stage.device))
    own = Stage(stage.config, stage.classes, net, name="the average", precision=stage.precision)
    return make_fast(own.to(stage.device), compiled=compiled)


def draw_probe(
    probe: Probe,
    stage: Stage,
    batch_size: int,
    session: Session,
    *,
    find_stop: Callable[[], str],
    what: str = "draw",
) -> np.ndarray | None:
    """Sample uint8 [num, H, W, C]; each process fills its share (`find_share`), no more.

    find_stop: returns what asks to stop, which gives None in every process. what: names the
    progress bar.

    Batches are halved where the device's memory, which training fills, does not suffice. Raises in
    every process MemoryFloorError where one sample does not fit, and NotFiniteError where the
    samples of one process are none.
    """
    model, world = probe.config.model, session.world
    images = np.zeros((probe.num, model.resolution, model.resolution, model.channels), np.uint8)
    mine = find_share(probe.num, world) or range(probe.num - 1, probe.num)  # one is drawn along
    start, longest = 0, -(-probe.num // world.size)
    size = min(batch_size, longest)
    with session.report.track(what, probe.evaluations, "evaluations") as advance:
        while start < longest:
            first = min(mine.start + start, mine[-1])  # a shorter share repeats its last one
            places = range(first, min(mine.start + start + size, mine.stop))
            watch = _watch(len(places), world, advance, find_stop)
            drawn = session.decide(partial(_sample, probe, stage, places, size, watch))
            if not world.agree(drawn is not None):
                size = halve(size, stage.device)
                continue
            if world.any(bool(find_stop())):
                return None
            assert drawn is not None
            images[places.start : places.stop] = drawn
            start += size
    return images


def find_share(num: int, world: World) -> range:
    """Return the places among num samples that are this process's own; some have one more."""
    least, more = divmod(num, world.size)
    start = world.rank * least + min(world.rank, more)
    return range(start, start + least + (world.rank < more))


def gather_shares(images: np.ndarray, world: World) -> np.ndarray:
    """Return the images [num, ...] of which each process has filled its share, whole in each."""
    mine = find_share(len(images), world)
    return np.concatenate(world.gather(images[mine.start : mine.stop]))


def check_shares(probe: Probe, world: World) -> None:
    """Raise MismatchError where some process has no sample to judge."""
    if probe.num < world.size:
        raise MismatchError(
            f"{format_count(probe.num, 'sample')} for {world.size} processes",
            next="more samples, or fewer --gpus",
        )


def _watch(
    num: int, world: World, advance: Callable[[int, str], None], find_stop: Callable[[], str]
) -> Callable[[Steps], Steps]:
    """Return what wraps the steps of a batch; alone, a process need not wait for its end."""

    def wrap(steps: Steps) -> Steps:
        yield next(steps)  # x_T, which costs no evaluation
        for step in steps:
            advance(num * world.size, "")
            yield step
            if world.size == 1 and find_stop():
                return

    return wrap


def _sample(
    probe: Probe, stage: Stage, places: range, size: int, watch: Callable[[Steps], Steps]
) -> np.ndarray | None:
    """Return uint8 [n, H, W, C], or None where memory does not suffice; raise NotFiniteError."""
    try:
        generated = generate(
            stage, probe.chain, probe.make_inputs(places),
            seed=probe.seed, batch_size=size, watch=watch,
        )  # fmt: skip
        return as_images(stage, generated.x_0)
    except torch.OutOfMemoryError:
        return None
