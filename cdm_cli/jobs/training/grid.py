"""`samples/step-00005000.png`: what the averaged weights draw, the same noise at every step.

Rows are classes. A super-resolution stage shows real images in threes: the low-resolution input
enlarged, the sample, the original. DDIM in at most 50 steps: pictures to look at, not to judge.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cdm_cli.cascade.saved import name_checkpoint
from cdm_cli.data import disk, durable
from cdm_cli.data.pixels import move_channels_last
from cdm_cli.data.store import Store
from cdm_cli.errors import CdmError
from cdm_cli.jobs.pictures.tiles import (
    Sheet,
    SheetRows,
    choose_scale,
    draw_sheet,
    encode_png,
    enlarge,
)
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.numerics import choose_batch
from cdm_cli.jobs.sampling.probe import (
    Probe,
    build_averaged,
    choose_s,
    draw_probe,
    gather_shares,
    make_base_probe,
    make_sr_probe,
)
from cdm_cli.jobs.sampling.store_images import StoreImages, choose_part
from cdm_cli.jobs.training.log import Metrics
from cdm_cli.jobs.training.objective import StageObjective
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.options.sampling import Sampling
from cdm_cli.plans import TrainingConfig
from cdm_cli.units import format_count

SAMPLES = "samples"
HEADS = ("input", "sample", "real")
CLASSES, PER_CLASS, PER_CLASS_SR, STEPS = 10, 4, 2, 50


@dataclass(frozen=True)
class GridLayout:
    """What a grid shows: samples, row by row; beside enlarged ones, what they start from."""

    probe: Probe
    rows: list[tuple[str, np.ndarray]]  # names, and int64 places within the probe
    originals: StoreImages | None = None
    lowres: StoreImages | None = None

    @property
    def title(self) -> str:
        """How the samples are drawn."""
        chain, s = self.probe.chain, self.probe.s
        noised = "" if s is None else f", {self.probe.lowres} noised to s = {s}"
        return f"{chain.sampler}, {format_count(chain.evaluations, 'step')}{noised}"


def plan_layout(header: Header, store: Store, training: TrainingConfig) -> GridLayout:
    """Choose the samples that every grid of a run shows, and the chain that draws them.

    Raises UsageError for a training.sample_s out of range.
    """
    config = header.config
    s = choose_s(config, training.sample_s, "training.sample_s")
    T = config.schedule.T
    steps = min(config.sampling.steps or T, T, STEPS)
    sampling = Sampling(sampler="ddim", steps=steps, seed=training.seed)
    if s is None:
        return _plan_base(header, sampling)
    return _plan_sr(header, store, s, sampling)


def spread(num: int, most: int = CLASSES) -> list[int]:
    """Return up to `most` of the places 0..num - 1, evenly spread and ascending, with both ends."""
    return np.unique(np.linspace(0, num - 1, min(num, most)).round().astype(np.int64)).tolist()


def _plan_base(header: Header, sampling: Sampling) -> GridLayout:
    conditional = header.config.model.num_classes > 0
    there = header.shown
    shown = tuple(there[k] for k in spread(len(there))) if conditional else (0,) * CLASSES
    probe = make_base_probe(header, PER_CLASS * len(shown), sampling, shown)
    rows = [
        (header.classes[label] if conditional else "", np.arange(row, probe.num, len(shown)))
        for row, label in enumerate(shown)
    ]
    return GridLayout(probe, rows)


def _plan_sr(header: Header, store: Store, s: int, sampling: Sampling) -> GridLayout:
    _, part = choose_part(store, None)
    labels = np.asarray(part.labels)
    there = np.unique(labels)
    groups = [
        (store.classes[label], np.flatnonzero(labels == label)[:PER_CLASS_SR])
        for label in there[spread(len(there))].tolist()
    ]
    chosen = np.concatenate([places for _, places in groups])
    ends = np.cumsum([len(places) for _, places in groups])
    rows = [
        (name, np.arange(end - len(places), end))
        for (name, places), end in zip(groups, ends, strict=True)
    ]
    return GridLayout(
        probe=make_sr_probe(header, store, chosen, s, sampling),
        rows=rows,
        originals=StoreImages(part, header.config.model.resolution, chosen),
        lowres=StoreImages(part, header.conditioning.resolution, chosen),
    )


def draw_grid(layout: GridLayout, images: np.ndarray) -> Image.Image:
    """Draw the grid of a layout from its samples, uint8 [num, H, W, C]."""
    tiles, rows, heads = dict(enumerate(images)), layout.rows, ()
    if layout.originals is not None and layout.lowres is not None:
        tiles, rows = _set_in_threes(layout.rows, images, layout.lowres, layout.originals)
        heads = HEADS * max(len(places) for _, places in layout.rows)
    return draw_sheet(Sheet(tiles, rows, layout.title, heads), choose_scale(images.shape[1]))


def _set_in_threes(
    rows: SheetRows, images: np.ndarray, lowres: StoreImages, originals: StoreImages
) -> tuple[dict[int, np.ndarray], SheetRows]:
    places = range(len(images))
    z_0 = move_channels_last(lowres.take_images(places)).numpy()
    x_0 = move_channels_last(originals.take_images(places)).numpy()
    inputs = np.stack([enlarge(image, images.shape[1]) for image in z_0])
    tiles = np.stack([inputs, images, x_0], 1).reshape(-1, *images.shape[1:])
    threes = [(name, (3 * at[:, None] + np.arange(3)).reshape(-1)) for name, at in rows]
    return dict(enumerate(tiles)), threes


class SampleGrid:
    """Draws the grid of a step: every process samples its share, the first writes the picture."""

    def __init__(
        self, directory: Path, layout: GridLayout, trainer: Trainer, find_stop: Callable[[], str]
    ) -> None:
        self.every = trainer.training.grid_every
        self._home, self._layout = directory / SAMPLES, layout
        self._trainer, self._find_stop = trainer, find_stop

    def is_missing(self, step: int) -> bool:
        """Whether the picture of a step is not there."""
        return not self._locate(step).is_file()

    def __call__(self, step: int, metrics: Metrics | None) -> None:
        """Draw the samples and write the picture; nothing if the run is asked to stop meanwhile.

        A CdmError, as of too little memory, is reported, and training goes on without this picture.
        """
        try:
            images = self._draw()
        except CdmError as error:
            self._trainer.session.report.say(f"no sample grid at step {step}: {error.what}")
            return
        if images is None or not self._trainer.world.leads:
            return
        found = draw_grid(self._layout, images)
        disk.make_directory(self._home)
        durable.write_file_atomically(self._locate(step), encode_png(found))
        if metrics is not None:
            metrics.show(SAMPLES, np.asarray(found.convert("RGB")), step)

    def _draw(self) -> np.ndarray | None:
        objective, probe = self._trainer.objective, self._layout.probe
        assert isinstance(objective, StageObjective)
        stage = build_averaged(objective.stage, self._trainer.ema)
        session = self._trainer.session
        size = choose_batch(probe.config, stage.device)
        images = draw_probe(probe, stage, size, session, find_stop=self._find_stop)
        return None if images is None else gather_shares(images, session.world)

    def _locate(self, step: int) -> Path:
        return self._home / f"{name_checkpoint(step)}.png"
