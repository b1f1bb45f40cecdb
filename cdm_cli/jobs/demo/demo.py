"""`cdm demo`: every real command, one after another, on images that it draws itself.

Nothing here knows how a command works: each is run as its own program, with the words that
a user would type, so what the demo shows is what the README's transcript does.
"""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cdm_cli.data.disk import make_directory
from cdm_cli.data.durable import write_file_atomically
from cdm_cli.errors import CdmError, StoppedError, WouldOverwriteError
from cdm_cli.jobs.demo.drawing import write_images
from cdm_cli.jobs.demo.enlarging import write_enlarged
from cdm_cli.jobs.demo.lessons import list_lessons
from cdm_cli.jobs.demo.picture import draw_picture
from cdm_cli.jobs.pictures.tiles import encode_png
from cdm_cli.jobs.runtime.busy import TOLD, advise
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.names import DATA_ENV, RUNS_ENV
from cdm_cli.options.files import DemoOptions
from cdm_cli.report import Report
from cdm_cli.signals import undo_if_left

TRAIN_PER_CLASS, VAL_PER_CLASS, DRAWN_RESOLUTION = 400, 100, 32
HIGH = 16  # the resolution of the cascade
STDERR = 2
PATIENCE = 1.0  # seconds for a command to end after the second Ctrl-C, before it is killed
PR_SET_PDEATHSIG = 1
TRANSCRIPT = """
prepare train.zip --val val.zip -o data.h5 --resolution 8 --resolution 16
train base --preset tiny-base8 --seed {seed}
train sr --preset tiny-sr8-16 --seed {seed}
train features --preset tiny-classifier --seed {seed}
sample base --num 400 --keep-s 251,501 --seed {seed} -o lowres.h5
sweep-s --s 0,251,501,1000 --num 200 --features features --seed {seed} -o sweep
upsample --s 251 --seed {seed} -o samples.h5
upsample data.h5 --split val --num 40 --s 0 --seed {seed} -o again.h5
"""
JUDGED = """
eval fid,accuracy --features features --against enlarged.h5 -o scores.json
"""


@dataclass(frozen=True)
class DemoResult:
    """What the demo has shown, and the files to look at."""

    directory: Path
    picture: Path
    low_resolution_images: Path
    images: Path
    sweep_plot: Path
    learned: list[str]

    def show_in_short(self) -> list[str]:
        """Return what the demo has shown, a line each, and which pictures to look at."""
        return [*self.learned, f"see {self.picture}, and {self.sweep_plot}"]


def run(options: DemoOptions, report: Report) -> DemoResult:
    """Draw the images and run the transcript; a second run continues the first.

    Raises CdmError with the exit code of the command that failed, StoppedError once asked to stop.
    """
    directory = options.directory
    make_directory(directory)
    if busy := advise():
        report.say(f"demo: {busy}")
    for name, per_class, seed in (("train", TRAIN_PER_CLASS, 0), ("val", VAL_PER_CLASS, 1)):
        count = write_images(
            directory / f"{name}.zip",
            per_class=per_class,
            resolution=DRAWN_RESOLUTION,
            seed=2 * options.seed + seed,
        )
        report.say(f"demo: drew {count} images into {directory / name}.zip")
    _type(TRANSCRIPT, options, report)
    write_enlarged(directory / "lowres.h5", directory / "enlarged.h5", HIGH)
    report.say("demo: enlarged lowres.h5 (bicubic) into enlarged.h5, to compare with")
    _type(JUDGED, options, report)
    return _tell_learned(directory)


def _type(lines: str, options: DemoOptions, report: Report) -> None:
    """Show each command, then run it as a user who types it."""
    for line in lines.format(seed=options.seed).strip().splitlines():
        report.say("")
        report.say(f"$ cdm {line}")
        _run(shlex.split(line), options.directory, quiet=options.quiet)


def _tell_learned(directory: Path) -> DemoResult:
    """Draw the picture that says it all, and tell what was learned."""
    stores = (directory / name for name in ("data.h5", "again.h5", "lowres.h5", "samples.h5"))
    shown = directory / "demo.png"
    write_file_atomically(shown, encode_png(draw_picture(*stores)))
    return DemoResult(
        directory=directory,
        picture=shown,
        low_resolution_images=directory / "lowres.h5",
        images=directory / "samples.h5",
        sweep_plot=directory / "sweep" / "sweep.png",
        learned=list_lessons(directory),
    )


def _run(words: list[str], directory: Path, *, quiet: bool) -> None:
    """Run one command in directory; its results go to stderr, ours alone to stdout.

    A signal stops it, too, also one that the demo alone is sent. Raises CdmError with its exit
    code, StoppedError where it ended well but the demo was asked to stop.
    """
    command = [sys.executable, "-m", "cdm_cli", *(["-q"] if quiet else []), *words]
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int) -> None:
        for process in started:  # where a terminal was there first, this asks for nothing more
            process.terminate()

    with (
        Stop(then=pass_on) as stop,
        undo_if_left(lambda: [_let_end(process) for process in started]),
    ):
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdout=STDERR,
            preexec_fn=_tie_to_parent(),
            env=_make_environment(),
        )
        started.append(process)
        if stop.asked:
            process.terminate()
        code = process.wait()
    kept = f"what was finished is in {directory}"
    if code:
        then = "read its line above; the same demo typed again continues"
        if code == WouldOverwriteError.exit_code:  # its line advises an -o, which a demo lacks
            then = "cdm demo with another DIR"
        error = CdmError(f"cdm {words[0]} ended with exit code {code}", kept=kept, next=then)
        error.exit_code = code if code > 0 else 128 - code
        raise error
    if stop.asked:
        again = "the same demo typed again continues"
        raise stop.error(kept, where=f" after cdm {words[0]}", next=again)


def _make_environment() -> dict[str, str]:
    """Return the environment, but not where the user's stages and data are: a demo has its own.

    What the demo has told of other programs is told by none of its commands.
    """
    left = {name: os.environ[name] for name in os.environ if name not in (RUNS_ENV, DATA_ENV)}
    return {**left, TOLD: "1"}


def _let_end(process: subprocess.Popen[bytes]) -> None:
    """Give a command that was interrupted as well the time to remove what is half written."""
    deadline = time.monotonic() + PATIENCE
    over = os.WEXITED | os.WNOWAIT | os.WNOHANG
    while os.waitid(os.P_PID, process.pid, over) is None and time.monotonic() < deadline:
        time.sleep(0.01)


def _tie_to_parent() -> Callable[[], None] | None:
    """Return what a child does first, so that it is killed when its parent dies (Linux alone)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    parent = os.getpid()

    def die_with_parent() -> None:
        assert prctl is not None
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that
            os._exit(StoppedError.exit_code)

    return die_with_parent if prctl else None
