"""Real processes, real signals: code 75, what to type next, and the same bytes in the end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import pbkdf2_hmac

import pytest
from typer.testing import CliRunner

from cdm_cli.__main__ import main as cdm_main
from cdm_cli.app import app
from cdm_cli.errors import StoppedError
from cdm_cli.jobs.runtime import launch as launching
from cdm_cli.jobs.runtime.session import take_part
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sampling.fill import Engine
from cdm_cli.options.sampling import Compute
from cdm_cli.signals import hear_within_calls, leave_when_asked, stop_after
from tests.drawings import class_images, write_zip
from tests.faults.inputs import count_blocks
from tests.faults.jobs import state
from tests.faults.runs import Counted
from tests.forking import children_of, fork
from tests.tiny import arrays_of, base_config, contents, write_stage, write_store

PATIENCE = 240  # seconds, on a very busy machine
SAMPLE = ("sample", "--num", "320", "--batch-size", "8", "--device", "cpu")  # block by block
TRAIN = (
    "train", "base", "--preset", "tiny-base8", "--device", "cpu", "--steps", "30",
    "--batch-size", "8", "--set", "model.base_channels=8", "--set", "model.num_heads=1",
    "--set", "schedule.T=20", "--set", "training.grid_every=0", "--set", "training.save_every=5",
)  # fmt: skip


def cdm(*words):
    """Run a command in this process: its exit code, and what it says."""
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Directories in which sampling and training were never disturbed."""
    home = tmp_path_factory.mktemp("whole")
    for name, words in (("sample", SAMPLE), ("train", TRAIN)):
        where = home / name
        lay_out(where, name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(where)
            assert cdm(*words)[0] == 0
    return home


def lay_out(where, name):
    where.mkdir()
    if name == "sample":
        config = base_config(steps=10, channel_mult=(1,))
        write_stage(where / "runs/base", config)
    else:
        write_store(where / "data.h5", "prepared", {"train": arrays_of(64, [8])})


@pytest.fixture
def workspace(tmp_path, monkeypatch, request):
    where = tmp_path / "here"
    lay_out(where, request.param)
    monkeypatch.chdir(where)
    return where


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.02)


def begun(*words):
    """Start a real `cdm` in the current directory."""
    command = [sys.executable, "-m", "cdm_cli", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def stopped(process, number):
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE)[1]
    return process.returncode, said.strip().splitlines()[-1]


@pytest.mark.parametrize("workspace", ["sample"], indirect=True)
def test_sampling_is_stopped_by_sigterm_and_alone_on_its_store(workspace, whole):
    process = begun(*SAMPLE)
    until(lambda: count_blocks(workspace / "lowres.h5"), "a block")
    code, said = cdm(*SAMPLE)
    assert code == 75, said
    assert f"lowres.h5 is being written by process {process.pid} on {socket.gethostname()}" in said
    code, said = stopped(process, signal.SIGTERM)
    done = count_blocks(workspace / "lowres.h5")
    assert code == 75, said
    assert "stopped by SIGTERM" in said
    assert f"{done} of 5 blocks are complete — Next: the same command continues" in said
    assert 0 < done < 5
    code, said = cdm(*SAMPLE)
    assert code == 0
    assert f"{done} of 5 blocks are there, continuing" in said
    assert state(workspace) == state(whole / "sample")


@pytest.mark.parametrize("workspace", ["train"], indirect=True)
def test_training_is_stopped_once_the_step_is_saved(workspace, whole):
    """By Ctrl-C; `python -m tests.faults.cluster` stops one by SIGUSR1."""
    process = begun(*TRAIN)
    saved = workspace / "runs/base/checkpoints/step-00000005/manifest.json"
    until(saved.exists, "a checkpoint")
    code, said = cdm(*TRAIN)
    assert code == 75, said
    assert f"runs/base is being trained by process {process.pid} on {socket.gethostname()}" in said
    code, said = stopped(process, signal.SIGINT)
    assert code == 75, said
    assert "stopped by Ctrl-C after step" in said
    assert "Next: run the same command again, it continues there" in said
    assert cdm(*TRAIN)[0] == 0
    assert state(workspace) == state(whole / "train")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_is_ignored_stays_so(number):
    """nohup lets a job outlive its terminal."""
    before = signal.signal(number, signal.SIG_IGN)
    with Stop() as stop:
        os.kill(os.getpid(), number)
        assert not stop.asked
    signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_of_a_scheduler_asks_to_stop(number):
    with Stop() as stop:
        os.kill(os.getpid(), number)
        assert stop.asked == number.name


def test_what_asks_after_the_last_look_of_one_part_of_a_command_stops_the_next(monkeypatch):
    """A race judges the last images of a round when nobody looks any more; so do all others."""
    with Stop():
        os.kill(os.getpid(), signal.SIGTERM)
    with Stop() as stop:
        assert not stop.asked  # in a notebook another command is none of that signal's
    monkeypatch.setattr("cdm_cli.signals._ours", [True])
    with Stop():
        os.kill(os.getpid(), signal.SIGTERM)
    then = []

    def go_on():
        with Stop(then.append) as stop:
            raise stop.error("")

    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        go_on()
    assert then == [signal.SIGTERM]
    with Stop() as stop:
        assert not stop.asked


def test_stop_after_asks_once_and_is_over_with_the_command():
    with stop_after(0.02), Stop() as stop:
        until(lambda: stop.asked, "the end of the time")
        assert stop.asked == "--stop-after"
    with stop_after(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("workspace", ["sample"], indirect=True)
def test_a_process_of_several_that_is_killed_is_named(workspace, whole):
    """--gpus 2 on a CPU; one process then ends what two began."""
    words = (*SAMPLE, "--gpus", "2")
    parent = forked(lambda: run_main(words, workspace / "said"))
    until(lambda: count_blocks(workspace / "lowres.h5"), "a block")
    ranks = sorted(children_of(parent))[-2:]
    os.kill(ranks[1], signal.SIGKILL)
    killed = time.monotonic()
    assert ended(parent) == 75
    assert time.monotonic() - killed < launching.GRACE, "the other one is asked to stop"
    said = (workspace / "said").read_text()
    assert "process 1 of 2 died: killed by SIGKILL" in said
    assert "Next: run the same command again" in said
    assert cdm(*SAMPLE)[0] == 0
    whole_store = whole / "sample/lowres.h5"  # its provenance tells of another command
    assert contents(workspace / "lowres.h5") == contents(whole_store)


def run_main(words, said):
    """Be a `cdm` whose messages go to a file."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = open(2, "w")
    sys.argv = ["cdm", *words]
    cdm_main()


def holds_a_lock(out, report, world):
    """A job that never ends; its process is known by a file."""
    with open(out, "w") as file:
        file.write(str(os.getpid()))
        file.flush()
        time.sleep(PATIENCE)


def test_processes_end_with_their_parent(tmp_path):
    """Else the lock of a job whose parent was killed would stay, and name a dead process."""
    out = tmp_path / "pid.h5"
    task, compute = partial(holds_a_lock, out), Compute(device="cpu")
    parent = forked(lambda: launching.launch_processes(task, compute, Counted()))
    until(lambda: out.exists() and out.read_text(), "the process")
    child = int(out.read_text())
    os.kill(parent, signal.SIGKILL)
    assert ended(parent) == -signal.SIGKILL
    until(lambda: not running(child), "its end")


def forked(action):
    pid = fork()
    if pid == 0:
        code = 70
        try:
            action()
        except SystemExit as leaving:
            code = leaving.code
        finally:
            os._exit(code)
    return pid


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def running(pid):
    """Whether a process runs still; one that only waits for its parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("workspace", ["sample"], indirect=True)
def test_a_command_stops_after_the_time_it_was_given(workspace, monkeypatch):
    monkeypatch.setattr("cdm_cli.jobs.sampling.sample.plan_work", lambda options: signal.pause())
    pid = forked(lambda: run_main((*SAMPLE, "--stop-after", "1s"), workspace / "said"))
    assert ended(pid) == 75
    assert "stopped by --stop-after; the same command" in (workspace / "said").read_text()


@pytest.mark.parametrize("workspace", ["sample"], indirect=True)
def test_sigterm_before_the_work_begins_is_a_stop_too(workspace, monkeypatch):
    """While torch is being imported, or weights are being read, there is nothing to save yet."""
    waiting = workspace / "waiting"
    monkeypatch.setattr(
        "cdm_cli.jobs.sampling.sample.plan_work", lambda options: (waiting.touch(), signal.pause())
    )
    pid = forked(lambda: run_main(SAMPLE, workspace / "said"))
    until(waiting.exists, "it to wait")
    os.kill(pid, signal.SIGTERM)
    assert ended(pid) == 75
    assert "stopped by SIGTERM; the same command" in (workspace / "said").read_text()


def take_a_while(waiting):
    """Compile a network."""
    waiting.touch()
    for _ in range(1000):
        time.sleep(0.01)
    os._exit(70)


@pytest.mark.parametrize("workspace", ["train"], indirect=True)
@pytest.mark.parametrize("early", [False, True], ids=["while it compiles", "before"])
def test_a_training_that_has_learned_nothing_yet_ends_at_once(early, workspace, whole):
    """A compiler would let the scheduler wait for minutes."""
    waiting = workspace / "waiting"

    def resume(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    with pytest.MonkeyPatch.context() as patch:  # the forked process takes it along
        compile_net = "cdm_cli.jobs.training.train.compile_net"
        patch.setattr(compile_net, lambda net: take_a_while(waiting))
        if early:
            patch.setattr("cdm_cli.jobs.training.train.resume", resume)
        pid = forked(lambda: run_main((*TRAIN, "--compile"), workspace / "said"))
    if not early:
        until(waiting.exists, "it to compile")
        os.kill(pid, signal.SIGTERM)
    assert ended(pid) == 75
    assert "stopped by SIGTERM; the same command" in (workspace / "said").read_text()
    assert waiting.exists() != early
    assert cdm(*TRAIN)[0] == 0
    left = state(workspace)
    assert {name: left[name] for name in left if name not in ("waiting", "said")} == state(
        whole / "train"
    )


@pytest.mark.parametrize("workspace", ["sample"], indirect=True)
@pytest.mark.parametrize("early", [False, True], ids=["while it compiles", "before"])
def test_a_command_that_compiles_before_it_samples_ends_at_once(early, workspace):
    waiting, make_block = workspace / "waiting", Engine.make_block

    def stop_and_make(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return make_block(*args)

    with pytest.MonkeyPatch.context() as patch:  # the forked process takes it along
        patch.setattr("torch.compile", lambda denoise, dynamic: lambda *_: take_a_while(waiting))
        patch.setattr("cdm_cli.cascade.fast._prepare_compiling", lambda: None)
        if early:
            patch.setattr(Engine, "make_block", stop_and_make)
        pid = forked(lambda: run_main((*SAMPLE, "--compile"), workspace / "said"))
    if not early:
        until(waiting.exists, "it to compile")
        assert "compiling the network" in (workspace / "said").read_text()
        os.kill(pid, signal.SIGTERM)
    assert ended(pid) == 75
    assert "stopped by SIGTERM; the same command" in (workspace / "said").read_text()
    assert waiting.exists() != early


@pytest.mark.parametrize("workspace", ["train"], indirect=True)
def test_a_stop_while_the_others_end_their_first_step_saves_it(workspace, monkeypatch):
    """No process leaves at once where another one may have gone on to step 2."""
    waited = []

    def press(world):
        if not waited:
            waited.append(world)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(World, "barrier", press)
    pid = forked(lambda: run_main(TRAIN, workspace / "said"))
    assert ended(pid) == 75
    assert "stopped by SIGTERM after step 1 of 30" in (workspace / "said").read_text()


@pytest.mark.parametrize("workspace", ["train"], indirect=True)
def test_a_process_that_waits_for_another_to_come_hears_a_signal(workspace, monkeypatch):
    """--gpus and torchrun ask the others to end where one is stopped before it joined them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    places = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    process = begun(*TRAIN)
    until(lambda: listens(int(port)), "the first of two processes")
    time.sleep(0.2)  # within the library by now
    asked = time.monotonic()
    code, said = stopped(process, signal.SIGTERM)
    assert (code, time.monotonic() - asked < 10) == (75, True)
    assert said.startswith("cdm: error: stopped by SIGTERM; the same command")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for_the_second(report, world):
    """A task whose second process is stopped before it joins the first."""
    if world.rank:
        os.kill(os.getpid(), signal.SIGTERM)
    take_part(print, None, Compute(device="cpu"), report, world)


def test_one_of_two_stopped_before_they_met_ends_both():
    asked = time.monotonic()
    with pytest.raises(StoppedError, match="process 1 of 2 was stopped"):
        launching.launch_processes(wait_for_the_second, Compute(device="cpu", gpus=2), Counted())
    assert time.monotonic() - asked < launching.GRACE


EARLY = (0.0, 0.02, 0.05, 0.1, 0.15, 0.3)  # seconds of computing since signals are heard
PRESSED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
ENDS = ((75, "stopped by SIGTERM"), (75, "stopped by SIGHUP"), (130, "interrupted"))


@pytest.mark.parametrize(
    ("words", "delays"),
    [(SAMPLE, EARLY), (("grid", "s.h5"), EARLY[::2]), (("export", "s.h5", "-o", "e"), EARLY[1::2])],
)
@pytest.mark.parametrize("workspace", ["sample"], indirect=True)
def test_a_signal_while_modules_are_imported_is_one_line_and_75(workspace, words, delays):
    """Several processes at a time, each stopped a moment later; Ctrl-C has nothing to save: 130."""
    write_store(workspace / "s.h5", "samples", {"": arrays_of(64, [8])})
    processes = [begun(*words) for _ in delays]
    for place, (delay, process) in enumerate(zip(delays, processes, strict=True)):
        until_it_computed(process, delay)
        process.send_signal(PRESSED[place % 3])
    for place, process in enumerate(processes):
        said = process.communicate(timeout=PATIENCE)[1].strip().splitlines()
        code, what = ENDS[place % 3]
        assert process.returncode == code, said
        assert said[-1].startswith(f"cdm: error: {what}")
        assert len(said) <= 2, said  # the file names by default may stand before it


def test_a_signal_to_all_processes_is_for_the_first_to_decide(tmp_path, monkeypatch):
    """As a terminal and a scheduler send it, here while a process that decodes images starts."""
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "images.zip", class_images(per_class=700, height=16, width=16))
    command = [sys.executable, "-m", "cdm_cli", "prepare", "images.zip", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        until(lambda: any(map(spawned, children_of(process.pid))), "a process of its own")
        os.killpg(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=60)[1].strip().splitlines()[-1]
    finally:
        process.kill()
    assert process.returncode == 75, said
    assert "stopped by SIGTERM — " in said


def spawned(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"spawn_main" in file.read()


def until_it_computed(process, seconds):
    until(lambda: hears(process, signal.SIGTERM), "the first instruction of main")
    begin = computed(process)
    until(lambda: computed(process) >= begin + seconds, "a process to go on")


def hears(process, number):
    """Whether a process has a handler of its own for a signal."""
    with open(f"/proc/{process.pid}/status") as file:
        (mask,) = [line.split()[1] for line in file if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (number - 1) & 1)


def computed(process):
    """Return the seconds that a process has computed for."""
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


PRESSING = """
import os, signal, sys, weakref
from cdm_cli.signals import leave_when_asked
leave_when_asked()
from cdm_cli import app
from cdm_cli.commands import _fields
class Thing: pass
class Dying:
    def __del__(self): press()
def press(*_): os.kill(os.getpid(), signal.SIGINT)
def endless():
    try: yield
    finally: press()
def in_text(): exec("press()", {"press": press})
def in_a_weakref_callback():
    thing = Thing()
    Thing.seen = weakref.ref(thing, press)
def in_a_finaliser(): Dying()
def in_a_generator_that_is_closed(): next(endless())
filled = _fields.fill_options
def pressed(*words):
    globals()["WHERE"]()
    return filled(*words)
_fields.fill_options, sys.argv = pressed, ["cdm", "inspect", "x"]
app._say("all that is needed to say a line is imported")
app.main()
"""
LOST = ("in_a_weakref_callback", "in_a_finaliser", "in_a_generator_that_is_closed")


@pytest.mark.parametrize("where", ["in_text", *LOST])
def test_ctrl_c_is_never_lost(where, tmp_path):
    """Imports call back as their locks go; what is raised there Python prints and forgets.

    In code that is compiled from text, as dataclasses do, Python would kill itself by SIGINT.
    """
    (tmp_path / "pressing.py").write_text(PRESSING.replace("WHERE", where))
    command = [sys.executable, "-m", "pressing"]
    found = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **found})
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("cdm: error: interrupted; the same command")


def press_once_lost(*_):
    """Press Ctrl-C where what is raised is lost."""

    class Dying:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)

    Dying()


def test_a_second_ctrl_c_is_never_lost():
    def act():
        leave_when_asked()
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked == "Ctrl-C"
            press_once_lost()

    assert ended(forked(act)) == 130


def stop_and_tell(stop):
    raise stop.error("3 of 9 are saved")


def go_on(stop):
    pass


@pytest.mark.parametrize("act", [stop_and_tell, go_on])
def test_a_signal_that_a_job_took_is_not_heard_once_more(act, monkeypatch):
    """Where several leave each other, which takes NCCL a while, or one part follows another."""
    monkeypatch.setattr("cdm_cli.signals.HANDLED", 0.05)

    def job():
        leave_when_asked()
        with hear_within_calls():
            with suppress(StoppedError), Stop() as stop:
                os.kill(os.getpid(), signal.SIGTERM)
                act(stop)
            time.sleep(0.2)
        sys.exit(3)

    assert ended(forked(job)) == 3


def test_ctrl_c_ends_a_program_that_is_within_a_library(monkeypatch):
    """A terminal sends it to all processes of a job, to which the parent then passes SIGTERM on."""
    monkeypatch.setattr("cdm_cli.signals.HANDLED", 0.2)

    def job():
        leave_when_asked()
        with hear_within_calls():
            threading.Thread(target=press_and_pass_on, daemon=True).start()
            pbkdf2_hmac("sha256", b"", b"", 10**8)  # no handler runs before it ends

    assert ended(forked(job)) == 130


def press_and_pass_on():
    for number in (signal.SIGINT, signal.SIGTERM):
        time.sleep(0.05)
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 3), (signal.SIGINT, 130)])
def test_only_ctrl_c_ends_a_program_before_it_has_said_what_is_saved(number, code):
    """A scheduler may ask all processes of a job, which the first one asks as well."""

    def job():
        leave_when_asked()
        with suppress(StoppedError), Stop() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.asked == "SIGTERM"
            stop_and_tell(stop)
        os.kill(os.getpid(), number)
        sys.exit(3)

    assert ended(forked(job)) == code


class PressedWhileItStarts:
    """A task; Ctrl-C is pressed while the process that is to do it imports what it needs."""

    def __call__(self, report, world):
        time.sleep(PATIENCE)

    def __setstate__(self, state):
        os.kill(os.getpid(), signal.SIGINT)

    def __getstate__(self):
        return {"pressed": True}


@pytest.mark.parametrize("task", [press_once_lost, PressedWhileItStarts()])
def test_ctrl_c_in_a_process_of_a_job_is_never_lost(task, capfd):
    with pytest.raises(KeyboardInterrupt):
        launching.launch_processes(task, Compute(device="cpu", gpus=1), Counted())
    assert capfd.readouterr().err == "", "the parent alone says it"


def wait_for_a_stop(report, world):
    """A task that is asked to stop while it waits for that."""
    with Stop() as stop, report.track("wait", 1, "stops") as advance:
        advance(0, "")
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if stop.asked:
                raise stop.error("3 of 9 are saved")
            time.sleep(0.02)


class Pressing(Counted):
    """Sends this process SIGINT, and no other one, as `kill -INT` does."""

    @contextmanager
    def track(self, what, total, unit, done=0):
        yield lambda count, note: os.kill(os.getpid(), signal.SIGINT)


def test_a_stop_of_the_parent_alone_is_passed_on_be_it_by_sigint():
    with pytest.raises(StoppedError, match=r"stopped by Ctrl-C — 3 of 9"):
        launching.launch_processes(wait_for_a_stop, Compute(device="cpu", gpus=1), Pressing())


SPAWNING = """
import os
import multiprocessing as mp
from cdm_cli.signals import hold_back_signals
with hold_back_signals():
    lock = mp.get_context("spawn").Lock()
os._exit(0)
"""


def test_nothing_is_said_after_the_last_line_of_a_program_with_processes():
    """Python warns of the semaphores that it removes in the program's place."""
    command = [sys.executable, "-c", SPAWNING]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    assert ended.stderr == ""
