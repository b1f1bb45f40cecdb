"""What a free search begins with: ways that no judge chose, and those that were published.

The times with the least bits (`dynamic`), those that end nearest to the stage's own many steps
(`teacher`), evenly spread and quadratic ones, with the noise of ancestral sampling and with half
of it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cdm_cli.cascade.generate import SampleInputs, check_finite, name_noise
from cdm_cli.data.pixels import from_uint8
from cdm_cli.data.store import Store
from cdm_cli.diffusion.noise import Noise
from cdm_cli.diffusion.samplers import EpsTheta
from cdm_cli.diffusion.schedules import Schedule
from cdm_cli.jobs.sampling.store_images import StoreImages, choose_rows
from cdm_cli.jobs.sampling.upsample import Conditioner
from cdm_cli.jobs.tune.dynamic import Predictions, find_least_bits, predict
from cdm_cli.jobs.tune.judge import PREFERRED, Scorer
from cdm_cli.jobs.tune.log import FirstTimes
from cdm_cli.jobs.tune.plan import REAL, Search
from cdm_cli.jobs.tune.search import Origin
from cdm_cli.jobs.tune.teacher import (
    NoisePath,
    choose_teacher_times,
    find_nearest,
    move_onto,
    walk_path,
)
from cdm_cli.jobs.tune.ways import Shape, Way, make_even_way, shape_times
from cdm_cli.nets.memory import halve, say_halved, translate_memory_errors
from cdm_cli.units import format_count

T = TypeVar("T")

TRIES = 72  # ways that are compared with the teacher
TAUGHT = 128  # images of the teacher
# What is tried beside them: first time / T, shape, and the stochasticities.
SHAPES: tuple[tuple[float, Shape, tuple[float, ...]], ...] = (
    (1.0, "sine", (1.0, 0.5, 0.2, 0.0)),
    (0.97, "sine", (0.5, 0.2, 0.0)),
    (1.0, "even", (0.5,)),
    (0.97, "even", (0.5, 0.2)),
    (0.97, "square", (0.2,)),
)


class Beginning:
    """Finds the times to begin with; what all numbers of steps share is computed once."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self._report = scorer, scorer.panel.session.report
        self._search, self._stage = scorer.search, scorer.ready.stage
        self._size = scorer.ready.numerics.batch_size
        self._bits: Predictions | None = None
        self._taught: tuple[NoisePath, Tensor, SampleInputs] | None = None
        self._grid = choose_teacher_times(self._search.schedule)

    @torch.inference_mode()
    def find_times(self, steps: int) -> FirstTimes:
        """Return the times for so many steps."""
        elbo = self._find_within_memory(self._find_elbo_times, steps)
        return FirstTimes(
            steps=steps,
            elbo=elbo,
            teacher=self._find_within_memory(self._find_teacher_times, steps),
        )

    def _find_within_memory(self, find: Callable[[int], T], steps: int) -> T:
        """Return find(steps), which shows fewer images once the device has no memory for them."""
        while True:
            try:
                with translate_memory_errors():
                    return find(steps)
            except torch.OutOfMemoryError:
                self._taught = None
            self._stage.release()
            self._size = halve(self._size, self._stage.device)
            self._report.say(say_halved(self._size))

    def _find_elbo_times(self, steps: int) -> tuple[int, ...] | None:
        if self._search.real is None or steps > len(self._grid):
            return None
        if self._bits is None:
            self._bits = self._measure(self._search.real)
        return find_least_bits(self._search.schedule, self._bits, steps)

    def _measure(self, real: Store) -> Predictions:
        """Evaluate the network at every time of the grid on real images."""
        x_0, inputs = self._read_real_images(real)
        schedule = self._search.schedule
        name = f"{name_noise(self._stage.config)}/elbo"
        noise = Noise(self._scorer.seed, name, inputs.ids)
        total = len(self._grid) * len(x_0)
        with self._report.track("terms of the bound", total, "evaluations") as advance:
            found = predict(
                schedule, self._grid, x_0, self._bind_eps_theta(inputs, schedule), noise,
                lambda num: advance(num, format_count(len(x_0), "image")),
            )  # fmt: skip
        check_finite(self._stage, torch.from_numpy(found.square))
        return found

    def _read_real_images(self, store: Store) -> tuple[Tensor, SampleInputs]:
        config, search = self._stage.config, self._search
        name = PREFERRED if PREFERRED in store.parts else next(iter(store.parts))
        part = store.parts[name]
        rows = choose_rows(store, part, min(REAL, self._size, part.num))
        images = StoreImages(part, config.model.resolution, rows)
        every = range(len(rows))
        if config.conditioning is not None and search.s is not None:
            low = StoreImages(part, config.conditioning.resolution, rows)
            conditioner = Conditioner(
                search.header, low, search.s, "non-truncated", self._scorer.seed
            )
            inputs = conditioner.make_inputs(every)
        else:
            ids, y = images.take_ids(every), images.take_labels(every)
            inputs = SampleInputs(torch.from_numpy(ids), torch.from_numpy(y))
        x_0 = from_uint8(images.take_images(every))
        rows = torch.arange(self._size).clamp(max=len(x_0) - 1)
        return x_0[rows].to(self._stage.device), inputs.pad(self._size).to(self._stage.device)

    def _bind_eps_theta(self, inputs: SampleInputs, schedule: Schedule) -> EpsTheta:
        y = inputs.y if self._stage.config.model.num_classes else None
        return self._stage.eps_theta(schedule, y, inputs.z_s, inputs.s)

    def _find_teacher_times(self, steps: int) -> tuple[int, ...]:
        """Return the times whose steps end nearest to the teacher's, from the same noise."""
        schedule = self._search.schedule
        if steps >= len(self._grid):
            return shape_times(schedule.T, steps, 1.0, "even")
        path, wanted, inputs = self._run_teacher()
        eps_of = partial(self._bind_eps_theta, inputs)

        def measure_distance(way: Way) -> float:
            found = walk_path(schedule, eps_of, way, path)
            advance(len(found) * steps, format_count(steps, "step"))
            return float((found - wanted).square().mean())

        published = [shape_times(schedule.T, steps, first, shape) for first, shape, _ in SHAPES]
        published_ways = [move_onto(self._grid, make_even_way(times, 1.0)) for times in published]
        rng = np.random.default_rng([self._scorer.seed, steps])
        total = (TRIES + len(published_ways)) * len(wanted) * steps
        what = f"{format_count(steps, 'step')}, beside the teacher"
        with self._report.track(what, total, "evaluations") as advance:
            return find_nearest(
                schedule, self._grid, published_ways, measure_distance, TRIES, rng
            ).times

    def _run_teacher(self) -> tuple[NoisePath, Tensor, SampleInputs]:
        if self._taught is None:
            stage, schedule, shown = self._stage, self._search.schedule, self._search.inputs.shown
            num = count_taught_images(self._search, self._size)
            inputs = shown.make_inputs(range(num)).to(stage.device)
            model = stage.config.model
            x = torch.empty(num, model.channels, model.resolution, model.resolution)
            noise = Noise(shown.seed, f"{name_noise(stage.config)}/path", inputs.ids)
            path = NoisePath.draw(schedule, self._grid, x.to(stage.device), noise)
            eps_of = partial(self._bind_eps_theta, inputs)
            wanted = walk_path(schedule, eps_of, make_even_way(self._grid, 1.0), path)
            check_finite(stage, wanted)
            self._taught = path, wanted, inputs
        return self._taught


def count_taught_images(search: Search, batch_size: int) -> int:
    """Return how many images the teacher shows: one batch at most."""
    return min(TAUGHT, batch_size, len(search.inputs.shown.ids))


def count_evaluations(search: Search, batch_size: int, missing: Sequence[int]) -> int:
    """Return how many evaluations the beginning takes at most for the numbers of steps missing."""
    if not missing:
        return 0
    times = len(choose_teacher_times(search.schedule))
    compared = sum((TRIES + len(SHAPES)) * steps for steps in missing if steps < times)
    bits = times * min(REAL, batch_size) if search.real else 0
    return count_taught_images(search, batch_size) * (times + compared) + bits


def list_starts(search: Search, begun: FirstTimes) -> list[tuple[Origin, Way]]:
    """Return what a search tries first, each way once: that of --start, those of the bound, ..."""
    listed: list[tuple[Origin, Way]] = []
    if given := search.given.get(begun.steps):
        listed.append(("given", given))
    if begun.elbo:
        listed.append(("elbo", make_even_way(begun.elbo, 1.0, "ddim")))
    for k in (1.0, 0.3):
        listed.append(("teacher", make_even_way(begun.teacher, k)))
    for first, shape, stochasticities in SHAPES:
        times = shape_times(search.schedule.T, begun.steps, first, shape)
        for k in stochasticities:
            listed.append(("shaped", make_even_way(times, k)))
    once = {way: origin for origin, way in reversed(listed)}
    return [(origin, way) for origin, way in listed if once.pop(way, None) is not None]
