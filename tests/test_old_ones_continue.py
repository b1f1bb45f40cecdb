"""What an earlier version left behind goes on under the same command; nothing is done twice.

tests/fixtures/e2ad55b holds it, with the commands that it was made with.
"""

import json
import shlex
import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from pydantic import Field
from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.cascade import generate, stagefile
from cdm_cli.config import ClassifierConfig, StageConfig
from cdm_cli.data.store import open_store
from cdm_cli.jobs.cas import training as cas_training
from cdm_cli.jobs.exchange import export_folder
from cdm_cli.metrics.features import ClassifierExtractor
from cdm_cli.plans import Plan, StageFile
from cdm_cli.settings import Later
from tests.data.stores import forget_block

HOME = Path(__file__).parent / "fixtures/e2ad55b/home.zip"
CURVE = "--num 20 --features features --device cpu --batch-size 8"
TRAIN = (
    "train base --preset tiny-base8 --set model.resolution=4 --batch-size 8 "
    "--set model.base_channels=8 --set model.channel_mult=[1] --set model.norm_groups=4 "
    "--set model.attention_resolutions=[] --set schedule.T=20 --set sampling.steps=3 "
    "--set training.warmup=2 --set training.lr=0.001 --set training.log_every=1 "
    "--set training.save_every=2 --set training.grid_every=0 --device cpu "
    "--select fid --select-num 20 --select-every 2 --features features"
)
PLAIN = f"eval checkpoints base --weights step-00000002 -o curve {CURVE}"
UPSAMPLED = f"eval checkpoints sr --s 5 --weights ema -o curve-sr {CURVE}"
SEARCH = f"tune-schedule --steps 2 --s 5 --trials 2 -o schedule.json {CURVE}"
SWEEP = f"sweep-s --s 5 --augment truncated -o sweep {CURVE}"
ON_SCHEDULE = (
    f"sweep-s --s 5 --augment truncated --schedule schedule.json -o sweep-schedule {CURVE}"
)
SCORE = "eval cas samples.h5 --net small --steps 4 --batch-size 8 -o cas --device cpu"
HALF = "sample base --num 130 --seed 1 -o half.h5 --device cpu --batch-size 8"
BASE = "sample base --num 66 --keep-s 5 -o lowres.h5 --device cpu --batch-size 8"
ABOVE = "upsample --s 5 --num 24 -o samples.h5 --device cpu --batch-size 8"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    with zipfile.ZipFile(HOME) as file:
        file.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def work(monkeypatch):
    """What is computed: samples drawn, images judged, classifiers trained, files encoded."""
    seen = {"drawn": 0, "judged": 0, "trained": 0, "encoded": 0}

    def counting(owner, name, key, number):
        real = getattr(owner, name)

        def call(*args, **how):
            seen[key] += number(args)
            return real(*args, **how)

        monkeypatch.setattr(owner, name, call)

    counting(generate, "walk", "drawn", lambda args: len(args[2].ids))
    counting(ClassifierExtractor, "__call__", "judged", lambda args: len(args[1]))
    counting(cas_training, "train", "trained", lambda args: 1)
    counting(export_folder, "from_array", "encoded", lambda args: 1)
    return seen


def cdm(line):
    result = CliRunner().invoke(app, ["-q", *shlex.split(line)])
    assert result.exit_code == 0, result.output
    return result.output


def refused(line):
    result = CliRunner().invoke(app, ["-q", *shlex.split(line)])
    assert result.exit_code == 73, result.output
    return result.output


@pytest.mark.parametrize(
    "line",
    [BASE, ABOVE, PLAIN, UPSAMPLED, SEARCH, SWEEP, ON_SCHEDULE, SCORE,
     f"{TRAIN} --steps 4", "export samples.h5 -o exported"],
)  # fmt: skip
def test_what_is_complete_is_recognised(line, work):
    cdm(line)
    assert not any(work.values()), work


class Grown(StageConfig):
    gain: Annotated[float, Later()] = 1.0


class GrownPlan(Plan):
    stage: Annotated[Grown | ClassifierConfig, Field(discriminator="kind")]


class GrownFile(StageFile):
    plan: GrownPlan


def change(stage, **groups):
    """Change fields of a stage.json, {"schedule": {"T": 21}}."""
    path = Path("runs", stage, "stage.json")
    file = json.loads(path.read_text())
    for group, values in groups.items():
        file["plan"]["stage"][group].update(values)
    path.write_text(json.dumps(file))


@pytest.mark.parametrize("stage", ["base", "sr", "features"])
def test_a_stage_is_written_as_ever_since_its_digest_is_of_that_text(stage):
    """A field that is missed here, or is new here, was added without `Later`."""
    there = json.loads(Path("runs", stage, "stage.json").read_text())["plan"]["stage"]
    here = stagefile.read_stage_file(Path("runs", stage)).plan.stage
    assert json.loads(here.model_dump_json()) == there


JUDGED = [PLAIN, UPSAMPLED, SEARCH, SWEEP, ON_SCHEDULE]


@pytest.mark.parametrize("line", [*JUDGED, BASE, ABOVE, SCORE, f"{TRAIN} --steps 4"])
def test_a_field_that_is_added_later_changes_nothing(line, work, monkeypatch):
    monkeypatch.setattr(stagefile, "StageFile", GrownFile)
    assert isinstance(stagefile.read_stage_file(Path("runs/sr")).plan.stage, Grown)
    cdm(line)
    assert not any(work.values()), work


@pytest.mark.parametrize(
    "line",
    [f"{PLAIN} --steps 3 --sampler sde-dpm-solver++", f"{UPSAMPLED} --steps 3 --sampler ancestral",
     f"{SEARCH} --sampler ancestral", f"{SWEEP} --steps 3 --sampler ancestral", ON_SCHEDULE],
)  # fmt: skip
def test_other_sampling_defaults_of_the_stage_change_nothing_that_was_judged(line, work):
    for stage in ("base", "sr"):
        change(stage, sampling={"sampler": "ddim", "steps": 7})
    cdm(line)
    assert not any(work.values()), work


def test_a_sweep_that_goes_on_after_them_is_still_one(work):
    change("sr", sampling={"steps": 7})
    cdm(f"{SWEEP} --steps 3".replace("--s 5", "--s 5,7").replace("truncated", "non-truncated"))
    assert work["judged"] == 41
    cdm(f"{SWEEP} --steps 3")
    assert work["judged"] == 41


@pytest.mark.parametrize(
    ("line", "code"), [(PLAIN, 73), (UPSAMPLED, 73), (SEARCH, 73), (SWEEP, 73), (ON_SCHEDULE, 78)]
)
def test_another_stage_is_refused(line, code):
    for stage in ("base", "sr"):
        change(stage, schedule={"T": 21})
    result = CliRunner().invoke(app, ["-q", *shlex.split(line)])
    assert result.exit_code == code, result.output
    assert "stage" in result.output


@pytest.mark.parametrize(
    ("line", "drawn", "judged"),
    [
        (HALF, 8, 0),
        (PLAIN.replace("step-00000002", "all"), 24, 20),
        (SEARCH.replace("--steps 2", "--steps 2,3"), 3 * 24, 3 * 20),
        (
            SWEEP.replace("--s 5", "--s 5,7").replace("truncated", "non-truncated"),
            2 * 20,
            2 * 20 + 1,
        ),
        (f"{TRAIN} --steps 6", 20, 20),
    ],
)
def test_what_is_missing_joins_it(line, drawn, judged, work):
    """Batches are padded to 8, a sweep's hold rows of both points; it shows a black image, too."""
    cdm(line)
    assert (work["drawn"], work["judged"]) == (drawn, judged)


def test_a_chain_that_stepped_on_what_it_kept_is_finished_so(work):
    """The states that a chain steps over are drawn between its own today; z_0 was another."""
    with open_store("lowres.h5", writable=True) as store:
        there, block = store.provenance, store.parts[""].read_block(1)
        forget_block(store.parts[""], 1)
    assert (there["identity"]["keep_s"], there["identity"]["steps"]) == ([5], 4)
    assert '"steps": 4' in cdm(f"{BASE} --dry-run --json")
    cdm(BASE)
    assert work["drawn"] == 8
    with open_store("lowres.h5") as store:
        made = store.parts[""].read_checked(1)
        assert store.provenance == there
    for name, array in block.items():
        np.testing.assert_allclose(made[name].astype(float), array.astype(float), atol=1)


def test_a_curve_that_did_not_record_all_says_that_it_guesses():
    """--restart-from and --schedule left no trace in it; another way of sampling never joins."""
    said = "did not record --restart-from and --schedule"
    assert said in cdm(PLAIN)
    assert said in cdm(PLAIN.replace("step-00000002", "all"))
    assert said in cdm(PLAIN.replace("step-00000002", "all"))
    before = Path("curve/curve.json").read_bytes()
    assert "--restart-from was none, is 20" in refused(f"{PLAIN} --restart-from 20")
    assert "did not record --schedule: it" in refused(f"{UPSAMPLED} --schedule schedule.json")
    again = PLAIN.replace("-o curve", "-o curve-restarted --restart-from 10")
    assert "did not record --restart-from: it" in refused(again)
    assert Path("curve/curve.json").read_bytes() == before


def test_old_numbers_get_no_verdicts_and_say_so():
    """The old point has no leave-out values, the two that join it have."""
    said = cdm(SWEEP.replace("--s 5", "--s 5,7").replace("truncated", "non-truncated"))
    assert "no verdicts by FID against train: 1 of 3 numbers were kept without" in said
    assert "how surely is not known" in said
    assert "as good as the best" not in said
    assert "worse by" not in said
    said = cdm(PLAIN.replace("step-00000002", "all"))
    assert "no verdicts by FID against train: 1 of 2 numbers" in said
    assert "as good as the best" not in said
    assert "worse by" not in said


def test_old_parts_are_merged(work):
    cdm("merge part1.h5 part2.h5 -o merged.h5")
    assert work["drawn"] == 0
