"""One GPU and two make the same bytes and numbers, disturbed or not; and what else runs on CUDA."""

import json
import math
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.data.store import open_store
from cdm_cli.errors import StoppedError
from cdm_cli.jobs.checking import verify
from cdm_cli.jobs.runtime import launch as launching
from cdm_cli.jobs.runtime.launch import launch_processes
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.jobs.tune import tune as tune_schedule
from cdm_cli.options.files import VerifyOptions
from cdm_cli.options.judging import TuneOptions
from cdm_cli.options.sampling import Compute, SampleOptions, Sampling, UpsampleOptions
from tests.asking import as_typed
from tests.cuda.rig import (
    GiB,
    in_turn,
    kill_parent,
    limited,
    needs,
    once,
    signal_rank,
    together,
    unlimited,
)
from tests.cuda.steps import JUDGE, S, cascade_together, drawing, drawing_words
from tests.faults.inputs import count_blocks
from tests.faults.test_signals import begun, until
from tests.tiny import Told, contents
from tests.trained import rows

STORES = ("lowres.h5", "samples.h5")
POINTS = ("none-s0000", f"non-truncated-s{S:04d}", f"truncated-s{S:04d}")
BLOCK = 64


def numbers(path):
    """Return the numbers of a table, by what they are."""
    return {
        (row["metric"], row["reference"]): row["value"]
        for row in json.loads(Path(path).read_text())["rows"]
    }


@needs(1)
def test_sampling_is_in_bfloat16_and_made_again_bit_by_bit(one):
    for store in STORES:
        with open_store(f"one-{store}") as made:
            numerics = made.provenance["numerics"]
            assert (numerics["precision"], numerics["compiled"]) == ("bf16", False)
        options = {"path": Path(f"one-{store}"), "replay": 3}
        lowres = {} if store == "lowres.h5" else {"lowres": Path("one-lowres.h5"), "model": "sr"}
        found = verify.run(as_typed(VerifyOptions, **options, **lowres), Told())
        assert (found.state, found.replay.asked, found.replay.tolerance) == ("good", 3, 0)
        assert found.replay.identical == found.replay.compared >= 3


@needs(2)
def test_two_gpus_make_what_one_makes(one):
    launch_processes(partial(in_turn, cascade_together("two")), Compute(gpus=2), Told())
    for store in (*STORES, *(f"sweep/{point}.h5" for point in POINTS)):
        assert contents(f"two-{store}") == contents(f"one-{store}"), store
    for table in (".json", *(f"-sweep/{point}.json" for point in POINTS)):
        alone = numbers(f"one{table}")
        assert alone
        assert numbers(f"two{table}") == pytest.approx(alone, rel=1e-4), table


@needs(2)
def test_a_rank_and_then_the_parent_are_killed_and_the_bytes_are_the_same(one):
    """Three processes in turn make one store: the first two are killed with -9."""
    out, killed = "killed.h5", []

    def kill():
        killed.append(time.monotonic())
        signal_rank(1, signal.SIGKILL)

    told = once(2 * BLOCK * 25, kill)  # in the third block of the first process
    with pytest.raises(StoppedError, match="process 1 of 2 died: killed by SIGKILL"):
        together(sample.run_in, drawing(out), 2, told)
    assert time.monotonic() - killed[0] < launching.GRACE
    done = count_blocks(Path(out))
    assert 2 <= done < 9
    process = begun(*drawing_words(out))
    until(lambda: count_blocks(Path(out)) > done, "another block")
    kill_parent(process)
    assert done < count_blocks(Path(out)) < 10
    together(sample.run_in, drawing(out), 2, Told())
    assert contents(out) == contents("one-lowres.h5")


@needs(1)
def test_grids_and_the_choice_of_the_best_were_made(home):
    for name in ("base", "sr"):
        stage = home / "runs" / name
        assert [path.name for path in sorted((stage / "samples").iterdir())] == [
            "step-00000030.png", "step-00000060.png",
        ]  # fmt: skip
        scores = [row["fid_train"] for row in rows(stage) if "fid_train" in row]
        assert len(scores) == 2
        assert all(map(math.isfinite, scores))
        assert (stage / "best.safetensors").exists()


@pytest.fixture
def memory():
    """Give this process one GiB of its device."""
    limited(GiB)
    yield
    unlimited()


@needs(1)
@pytest.mark.usefixtures("memory")
def test_samples_that_do_not_fit_are_said_in_one_line_with_the_next_command(home):
    words = ("sample", "--num", "64", "--batch-size")
    result = CliRunner().invoke(app, [*words, str(2**20), "-o", "large.h5"])
    said = [line for line in result.stderr.splitlines() if "error" in line]
    assert (result.exit_code, len(said)) == (69, 1)
    assert f"the memory of cuda:0 does not hold {2**20} samples at a time" in said[0]
    assert f"Next: --batch-size {2**19} with another -o" in said[0]
    unlimited()
    assert CliRunner().invoke(app, [*words, "64", "-o", "small.h5"]).exit_code == 0


@needs(1)
@pytest.mark.usefixtures("memory")
def test_a_batch_that_nobody_asked_for_is_one_that_fits(home, monkeypatch):
    monkeypatch.setattr("cdm_cli.jobs.sampling.numerics.choose_batch", lambda *_: 2**20)
    told = Told()
    sample.run(as_typed(SampleOptions, num=64, out=Path("halved.h5")), told)
    with open_store("halved.h5") as made:
        size = made.provenance["numerics"]["batch_size"]
        assert made.finished
    assert 64 <= size < 2**20
    assert f"out of device memory: now {size} images at a time" in told.lines


@needs(1)
def test_a_schedule_is_searched_and_used(one):
    lowres = Path("one-lowres.h5")
    search = {"lowres": lowres, "model": "sr", "steps": (4,), "s": S, "num": 64, "trials": 2}
    found = tune_schedule.run(as_typed(TuneOptions, **search, judge=JUDGE), Told())
    assert math.isfinite(found.schedules[0].fid)
    sampling = Sampling(schedule=found.out, steps=4)
    enlarging = {"lowres": lowres, "model": "sr", "s": S, "num": 64, "out": Path("tuned.h5")}
    made = upsample.run(as_typed(UpsampleOptions, **enlarging, sampling=sampling), Told())
    assert (made.made, made.network_evaluations) == (64, 4 * 64)
