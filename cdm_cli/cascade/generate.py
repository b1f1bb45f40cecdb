"""Running one stage's reverse process on a batch of samples (Sections 2.1, 2.4, 3.2, 4.2).

Beside x_0, states of the chain are kept at some times for the next stage, as its truncated z_s
(Section 3.2). A time that the chain visits has the state that was visited; one that it steps over
has a state between its two neighbours (`diffusion.between`). So the chain, and x_0, are the same
whatever is kept, and each state is the same whatever else is kept. After a restart (Section 4.2)
the chain goes through the times below restart_from twice: the states kept there are of the second
pass, which ends at x_0; those at restart_from and above are of the first.

Shapes: x_0 [B, C, H, W] and z_s [B, C, h, w] are float32; ids, y and s are int64 [B]. Times are
those of the process that the stage was trained on.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.stage import Stage
from cdm_cli.config import StageConfig
from cdm_cli.data.pixels import move_channels_last, to_uint8
from cdm_cli.diffusion.between import State, draw_between
from cdm_cli.diffusion.noise import Noise
from cdm_cli.diffusion.samplers import restart
from cdm_cli.diffusion.schedules import Schedule, find_index
from cdm_cli.errors import NotFiniteError
from cdm_cli.nets.memory import translate_memory_errors

Steps = Iterator[tuple[int, Tensor]]
Watch = Callable[[Steps], Iterable[tuple[int, Tensor]]]
Between = Callable[[Collection[int], State, State], dict[int, Tensor]]


class SampleInputs(NamedTuple):
    """The inputs of one batch. z_s and s belong to super-resolution, y to class conditioning."""

    ids: Tensor
    y: Tensor | None = None
    z_s: Tensor | None = None
    s: Tensor | None = None

    @classmethod
    def join(cls, batches: Sequence["SampleInputs"]) -> "SampleInputs":
        """Return the inputs of several batches as one; all have the same fields."""
        ids, *others = zip(*batches, strict=True)
        joined = (None if each[0] is None else torch.cat(each) for each in others)
        return cls(torch.cat(ids), *joined)

    def select(self, rows: slice | Tensor) -> "SampleInputs":
        """Return the inputs of some samples."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device) -> "SampleInputs":
        """Return the inputs on a device."""
        return self._map(lambda tensor: tensor.to(device))

    def pad(self, batch_size: int) -> "SampleInputs":
        """Repeat the last sample up to batch_size, so that all batches have one shape."""
        rows = torch.arange(batch_size, device=self.ids.device)
        return self.select(rows.clamp(max=len(self.ids) - 1))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "SampleInputs":
        others = (None if tensor is None else change(tensor) for tensor in self[1:])
        return SampleInputs(change(self.ids), *others)


class Generated(NamedTuple):
    """x_0, clean but neither rounded nor clipped, and z_s of the same reverse pass for each s."""

    x_0: Tensor
    z: dict[int, Tensor]


def name_noise(config: StageConfig) -> str:
    """Return the name that keys a stage's noise, "base32" or "sr32-64"; not its directory's."""
    low = f"{config.conditioning.resolution}-" if config.conditioning else ""
    return f"{config.kind}{low}{config.model.resolution}"


def walk(stage: Stage, chain: Chain, inputs: SampleInputs, seed: int) -> Steps:
    """Yield (time, x_time) from x_T down to x_0, on the stage's device.

    After a restart the times start again at restart_from (Section 4.2).
    """
    model = stage.config.model
    ids = inputs.ids.to(stage.device)
    noise = Noise(seed, name_noise(stage.config), ids)
    shape = (len(ids), model.channels, model.resolution, model.resolution)
    x_T = noise(torch.empty(shape, device=stage.device))
    y = inputs.y if model.num_classes else None
    eps_theta = stage.eps_theta(chain.schedule, y, inputs.z_s, inputs.s)
    sample, times = chain.sample(noise), chain.schedule.times.tolist()
    x_t = x_T
    yield times[-1], x_T
    for t, x_t in sample(eps_theta, chain.schedule, x_T):
        yield times[t], x_t
    if chain.restart_from:
        r = find_index(chain.schedule, chain.restart_from)
        again = restart(sample, eps_theta, chain.schedule, x_t, r, randn_like=noise)
        yield from ((times[t], x_t) for t, x_t in again)


@translate_memory_errors()
@torch.inference_mode()
def generate(
    stage: Stage,
    chain: Chain,
    inputs: SampleInputs,
    *,
    seed: int,
    keep: Sequence[int] = (),
    batch_size: int | None = None,
    watch: Watch = iter,
) -> Generated:
    """Sample a batch, padded to batch_size, and keep its states at the times of `keep`.

    x_T is drawn for each id; the chain leads down to x_0, each step with an evaluation of the
    network for x_t, t, z_s, s and y. Noise is that of (seed, `name_noise`, id, step), whatever the
    batch, and has another name where states between two steps are kept; rows of padding are
    dropped. x_0 does not depend on what is kept, and no evaluation is
    added. `watch` wraps the steps, x_T and one for each evaluation, to show progress or to stop
    between them.
    """
    num = len(inputs.ids)
    noise = Noise(seed, f"{name_noise(stage.config)}/between", inputs.ids.to(stage.device))
    draw = bind_noise(stage.schedule, noise, chain.stochasticity_by_time)
    kept = KeptStates(keep, chain.restart_from, num, draw)
    inputs = inputs.to(stage.device).pad(batch_size or num)
    x_time = torch.empty(0)
    for _, x_time in watch(kept.collect(walk(stage, chain, inputs, seed))):  # noqa: B007
        pass
    return Generated(x_time[:num], kept.z)


def check_finite(stage: Stage, *tensors: Tensor) -> None:
    """Raise NotFiniteError where a stage gave what is not finite, which bytes would hide."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise NotFiniteError(
            f"{stage.name} gives images that are not finite",
            kept="what was finished before is complete",
        )


def as_images(stage: Stage, x_0: Tensor) -> np.ndarray:
    """Return samples of a stage as bytes, uint8 [B, H, W, C]; the only way from floats to them.

    x_0: float [B, C, H, W]. Raises NotFiniteError.
    """
    check_finite(stage, x_0)
    return move_channels_last(to_uint8(x_0)).cpu().numpy()


def bind_noise(schedule: Schedule, noise: Noise, stochasticity: Mapping[int, float]) -> Between:
    """Return `draw_between` as a function of times and the two states of the chain around them.

    The noise at time s is step s of `noise`, whatever other times are asked for. stochasticity: by
    time, of the step that leaves it.
    """

    def noise_at(s: int, x: Tensor) -> Tensor:
        noise.skip_to(s)
        return noise(x)

    def draw(times: Collection[int], below: State, above: State) -> dict[int, Tensor]:
        k = stochasticity[above[0]]
        return draw_between(schedule, times, below, above, noise_at, k)

    return draw


class KeptStates:
    """Collects the states of a reverse pass at some times, for the first num samples of a batch.

    z: time -> state [num, C, H, W], filled while `collect` is iterated.
    """

    def __init__(
        self, times: Collection[int], restart_from: int | None, num: int, between: Between
    ) -> None:
        self.z: dict[int, Tensor] = {}
        self._times, self._restart_from = times, restart_from or 0
        self._num, self._between = num, between

    def collect(self, steps: Iterator[State]) -> Iterator[State]:
        """Yield the states of `steps`, keeping those asked for; skip the start of a restart."""
        wanted: Collection[int] = [s for s in self._times if s >= self._restart_from]
        above: State | None = None
        for time, x_time in steps:
            state = time, x_time[: self._num]
            if above and time > above[0]:
                above, wanted = state, self._times  # it meets those below alone
                continue
            if time in wanted:
                self.z[time] = state[1]
            if above:
                self.z |= self._between(wanted, state, above)
            above = state
            yield time, x_time
