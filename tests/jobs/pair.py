"""Two processes that stand ready for one job after another: to start two anew takes 4 s of a core.

How `--gpus N` starts its own is tested in tests/jobs/runtime/test_launch.py and tests/faults.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

from cdm_cli.jobs.runtime.launch import Task
from cdm_cli.jobs.runtime.world import World
from cdm_cli.options.sampling import Compute
from cdm_cli.report import Report
from tests.cuda.rig import address
from tests.tiny import Told


class Pair:
    """The two, each alone in a pool."""

    def __init__(self, pools: list[ProcessPoolExecutor]) -> None:
        self._pools = pools

    def launch(
        self, task: Task[Any], compute: Compute, report: Report, asked: dict[str, Any] | None = None
    ) -> Any:
        """Do what `launch_processes` does for two processes; what they say is not heard."""
        assert compute.gpus == len(self._pools)
        world = World(0, 2, address=address(), facts=asked or {})
        ends = [
            pool.submit(_take_part, os.getcwd(), task, replace(world, rank=rank, local_rank=rank))
            for rank, pool in enumerate(self._pools)
        ]
        first, _ = [end.result() for end in ends]
        return first


def _take_part(directory: str, task: Task[Any], world: World) -> Any:
    os.chdir(directory)
    return task(Told(), world)
