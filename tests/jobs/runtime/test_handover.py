"""Mirrors cdm_cli/jobs/runtime/handover.py: processes that are killed before they read it."""

import multiprocessing as mp
import os
import subprocess
import sys

import pytest

from cdm_cli.jobs.runtime.handover import Handover, hand_over
from tests.drawings import encoded, pixels, write_folder

LONG = 300  # names, of 240 letters: more than a pipe holds
PROGRAM = """
import multiprocessing, sys
multiprocessing.set_executable(sys.argv.pop(1))
from cdm_cli.__main__ import main
main()
"""
DIES = """#!/bin/sh
case "$*" in *spawn_main*) kill -9 $$ ;; *) exec {python} "$@" ;; esac
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


def run_dying(tmp_path, *words, program=PROGRAM):
    """Run a command whose processes are killed before they read anything."""
    dies = tmp_path / "dies"
    dies.write_text(DIES.format(python=sys.executable))
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
    prepare = "prepare images --workers 2 --resolution 1".split()
    ended = run_dying(tmp_path, *prepare)
    assert ended.returncode == 69, ended.stderr
    said = ended.stderr.splitlines()[-1]
    assert said.startswith("cdm: error: a process that decodes images was killed"), said
    command = [sys.executable, "-m", "cdm_cli", *prepare]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


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
