"""The states of a reverse pass that are kept beside its x_0, for truncated conditioning (3.2).

A time that the chain visits has the state that was visited; one that it steps over has a state
between its two neighbours (`diffusion.between`). So the chain, and x_0, are the same whatever is
kept, and each state is the same whatever else is kept.

After a restart (Section 4.2) the chain goes through the times below restart_from twice: those
states are of the second pass, which ends at x_0; at restart_from and above, of the first.
"""

from collections.abc import Callable, Collection, Iterator, Mapping

from torch import Tensor

from cdm_cli.diffusion.between import Rule, State, states_between
from cdm_cli.diffusion.noise import Noise
from cdm_cli.diffusion.schedules import Schedule

Between = Callable[[Collection[int], State, State], dict[int, Tensor]]


def filler_of(rule: Rule, schedule: Schedule, noise: Noise, partly: Mapping[int, float]) -> Between:
    """Return what makes the states between two; the noise of time s is the step s of `noise`.

    partly: the stochasticity of the step that leaves a time, where it has one of its own.
    """

    def noise_at(s: int, x: Tensor) -> Tensor:
        noise.skip_to(s)
        return noise(x)

    def between(times: Collection[int], below: State, above: State) -> dict[int, Tensor]:
        k = partly.get(above[0], 0.0)
        return states_between(rule, schedule, times, below, above, noise_at, k)

    return between


class Kept:
    """The states at some times of the first num samples of a batch, gathered as it goes down.

    z: what there is so far, by time.
    """

    def __init__(
        self, times: Collection[int], restart_from: int | None, num: int, between: Between
    ) -> None:
        self.z: dict[int, Tensor] = {}
        self._times, self._restart_from = times, restart_from or 0
        self._num, self._between = num, between

    def of(self, steps: Iterator[State]) -> Iterator[State]:
        """Pass the states on as they come, but for the start of a restart, which is no step."""
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
