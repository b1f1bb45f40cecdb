"""Mirrors cdm_cli/jobs/runtime/handover.py: processes that are killed before they read it."""

import multiprocessing as mp
import os
import subprocess
import sys
import threading
import time

import pytest

from cdm_cli.jobs.runtime.handover import Handover, hand_over, start_processes
from tests.drawings import encoded, pixels, write_folder

LONG = 300  # names, of 240 letters: more than a pipe holds
PROGRAM = """
import multiprocessing, sys
multiprocessing.set_executable(sys.argv.pop(1))
from cdm_cli.__main__ import main
main()
"""
DIES = """#!/bin/sh
case "$*" in *spawn_main*) {dies} ;; *) exec {python} "$@" ;; esac
"""
KILLED = "kill -9 $$"
PREPARE = "prepare images --workers 2 --resolution 1".split()
PREPARING = """
from tests.asking import as_typed
from tests.tiny import Told
from cdm_cli.jobs.prepare.prepare import run
from cdm_cli.options.files import PrepareOptions
print(run(as_typed(PrepareOptions, src="images", workers=2, resolution=(1,)), Told()).train)
"""


def report_length(handed: Handover[bytes]) -> None:
    os._exit(len(handed.take()) % 251)


def test_what_is_handed_over_is_taken_by_each_process():
    content = b"x" * 10**6
    context = mp.get_context("spawn")
    with hand_over(content) as handed:
        assert handed.take() == content
        two = [context.Process(target=report_length, args=(handed,)) for _ in range(2)]
        for process in two:
            process.start()
    for process in two:
        process.join()
        assert process.exitcode == len(content) % 251


def run_dying(tmp_path, *words, program=PROGRAM, how=KILLED):
    """Run a command whose processes are killed before they read anything."""
    dies = tmp_path / "dies"
    dies.write_text(DIES.format(python=sys.executable, dies=how))
    dies.chmod(0o700)
    command = [sys.executable, "-c", program, str(dies), *words]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)


@pytest.fixture
def images(tmp_path):
    files = {f"{'long' * 60}{i:04}.png": encoded(pixels(height=1, width=1)) for i in range(1)}
    folder = write_folder(tmp_path / "images", files)
    (first,) = folder.iterdir()
    for i in range(1, LONG):
        os.link(first, folder / f"{'long' * 60}{i:04}.png")
    return folder


def test_a_worker_killed_while_it_starts_is_told_in_one_line(tmp_path, images):
    ended = run_dying(tmp_path, *PREPARE)
    assert ended.returncode == 69, ended.stderr
    said = ended.stderr.splitlines()[-1]
    assert said.startswith("cdm: error: a process that decodes images was killed"), said
    command = [sys.executable, "-m", "cdm_cli", *PREPARE]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


def test_a_worker_that_dies_otherwise_is_not_said_to_lack_memory(tmp_path, images):
    ended = run_dying(tmp_path, *PREPARE, how="exit 3")
    assert ended.returncode == 75, ended.stderr
    said = ended.stderr.splitlines()[-1]
    assert "died with exit code 3; its own message is above" in said, said


@pytest.mark.parametrize("words", [["-"], ["program.py"]], ids=["stdin", "no main guard"])
def test_the_program_that_prepares_is_not_run_by_the_workers(tmp_path, images, words):
    (tmp_path / "program.py").write_text(PREPARING)
    place = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [sys.executable, *words], input=PREPARING, cwd=tmp_path, env=place, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, f"{LONG}\n"), ended.stderr


class OfMain:
    """Pretends to be defined in the main program."""


def test_the_main_program_is_there_where_what_is_handed_over_refers_to_it(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(OfMain, "__module__", "__main__")
    monkeypatch.setattr(main, "OfMain", OfMain, raising=False)
    for value, same in ((OfMain(), True), (b"x", False)):
        with hand_over(value) as handed, start_processes(handed):
            assert (sys.modules["__main__"] is main) is same
        assert sys.modules["__main__"] is main


def test_two_threads_that_start_processes_put_the_main_program_back():
    """The second begins while the first starts one, and ends after it."""
    main, within = sys.modules["__main__"], threading.Event()

    def start(seconds: float) -> None:
        with hand_over(b"x") as handed, start_processes(handed):
            within.set()
            time.sleep(seconds)

    threads = [threading.Thread(target=start, args=(seconds,)) for seconds in (0.1, 0.3)]
    for thread in threads:
        thread.start()
        within.wait()
    for thread in threads:
        thread.join()
    assert sys.modules["__main__"] is main


LAUNCHING = """
import multiprocessing, sys
multiprocessing.set_executable(sys.argv[1])
from cdm_cli.errors import StoppedError
from cdm_cli.jobs.runtime.launch import launch_processes
from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.options.sampling import Compute
try:
    launch_processes(print, Compute(device="cpu", gpus=2), Silent(), {"asked": "x" * 10**6})
except StoppedError as error:
    print(error)
"""


def test_a_process_of_gpus_killed_while_it_starts_is_told_in_one_line(tmp_path):
    ended = run_dying(tmp_path, program=LAUNCHING)
    assert "process 0 of 2 died: killed by SIGKILL" in ended.stdout, ended.stderr
