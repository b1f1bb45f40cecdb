"""Another process with `cdm eval cas`, which stops for a while within its first training.

It is told where by its first line of input, says "there" after step AT, and goes on at the next
line.
"""

import sys
from pathlib import Path

import torch

from cdm_cli.jobs.cas import report as cas_report
from cdm_cli.jobs.cas import training as cas_training
from cdm_cli.jobs.cas.cas import run
from tests.jobs.judging.scoring import options
from tests.tiny import Told

AT = 5  # of 12 steps


def halt(done):
    if done == AT:
        sys.stdout.write("there\n")
        sys.stdout.flush()
        sys.stdin.readline()


if __name__ == "__main__":
    torch.set_num_threads(1)
    cas_training.SAVE_SECONDS = 0.0
    cas_report.draw_plot = lambda *args: b""
    run(options(Path(sys.stdin.readline().strip())), Told(halt))
