"""Mirrors cdm_cli/jobs/training/train.py.

Whatever happens on the way, a run ends in the same bytes.

Here too: accuracy.py, cost.py, extras.py, files.py, pace.py.
"""

import gc
import json
import signal
import threading

import pytest
import torch

from cdm_cli.cascade import draws
from cdm_cli.cascade.checkpoint import load_stage
from cdm_cli.cascade.classifier import ClassifierStage
from cdm_cli.cascade.saved import list_checkpoints
from cdm_cli.cascade.stage import Stage, build_net
from cdm_cli.cascade.stagefile import read_stage_file, write_stage_file
from cdm_cli.config import StageConfig
from cdm_cli.data.pixels import from_uint8
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    DivergedError,
    MemoryFloorError,
    MismatchError,
    MissingError,
    StoppedError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.runtime import host_memory
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training import cost
from cdm_cli.jobs.training import loop as training_loop
from cdm_cli.jobs.training.objective import ClassifierObjective
from cdm_cli.jobs.training.train import plan
from cdm_cli.options.sampling import Compute
from cdm_cli.plans import Applied
from cdm_cli.presets import preset
from tests.jobs.judging.making import write_judge
from tests.tiny import Told, write_store
from tests.tiny import arrays_of as arrays
from tests.trained import CLASSIFIER, SR, left, options, rows, train, write_data

DROPOUT = "model.dropout=0.2"
KEEP_ALL = "training.keep=9"
LOSSES = [1.123236895, 4.872620106, 4.700426579, 2.372689009, 0.967258811]
# of steps 1 to 5 on a CPU; a refactor leaves them as they are


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of five steps with dropout that nothing disturbs, and all its checkpoints."""
    home = tmp_path_factory.mktemp("undisturbed")
    write_data(home / "data.h5")
    result = train(home, DROPOUT, KEEP_ALL)
    return home, result


@pytest.fixture
def home(undisturbed, tmp_path):
    """A workspace with the same data."""
    (tmp_path / "data.h5").hardlink_to(undisturbed[0] / "data.h5")
    return tmp_path


def base(home):
    return home / "runs/base"


def tensors(checkpoint, part):
    """Read one file of a checkpoint as safetensors does."""
    from safetensors.torch import load

    return load((checkpoint / f"{part}.safetensors").read_bytes())


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def same_as_undisturbed(home, undisturbed):
    ours, theirs = left(base(home)), left(base(undisturbed[0]))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_what_a_run_leaves_and_returns(undisturbed):
    home, result = undisturbed
    assert (result.stage, result.steps, result.skipped_steps) == (base(home), 5, 0)
    assert [path.name[-1] for path in list_checkpoints(base(home))] == ["2", "4", "5"]
    logged = rows(base(home))
    assert [row["step"] for row in logged] == [1, 2, 3, 4, 5]
    assert logged[-1]["loss"] == result.loss
    assert [row["lr"] for row in logged] == [5e-4, 1e-3, 1e-3, 1e-3, 1e-3]
    stage = load_stage("base", home / "runs")
    assert stage.config.model.num_classes == len(stage.classes) == 3
    assert result.images_per_second == pytest.approx(logged[-1]["images_per_second"], abs=0.1)


def test_the_compute_losses_a_seed_does_not_change(undisturbed):
    losses = [row["loss"] for row in rows(base(undisturbed[0]))]
    assert losses == pytest.approx(LOSSES, rel=1e-5)


def test_the_average_follows_its_closed_form(undisturbed):
    """The n-th update has decay (1 + n) / (10 + n), whatever came before."""
    home = undisturbed[0]
    train(home, DROPOUT, KEEP_ALL, "training.save_every=1", name="each")
    saved = list_checkpoints(home / "runs/each")
    first, second = (tensors(path, "ema") for path in saved[:2])
    model = tensors(saved[1], "model")
    stage = load_stage("each", home / "runs")
    assert isinstance(stage.config, StageConfig)
    for name, value in second.items():
        expected = 3 / 12 * first[name].double() + 9 / 12 * model[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = dict(build_net(stage.config).named_parameters())
    one = tensors(saved[0], "model")
    for name, value in first.items():
        expected = 2 / 11 * start[name].double() + 9 / 11 * one[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("step", [3, 4])
def test_stopped_and_resumed_ends_in_the_same_bytes(step, home, undisturbed):
    """The signal comes while a step is shown, which is the one that is saved."""
    told = Told(lambda done: signal.raise_signal(signal.SIGTERM) if done == step else None)
    with pytest.raises(StoppedError, match=rf"SIGTERM after step {step} of 5") as stopped:
        train(home, DROPOUT, KEEP_ALL, told=told)
    assert stopped.value.exit_code == 75
    stopped_at = base(home) / f"checkpoints/step-0000000{step}"
    assert stopped_at.is_dir()
    train(home, DROPOUT, KEEP_ALL)
    same_as_undisturbed(home, undisturbed)  # which has no checkpoint of step 3


def test_a_checkpoint_of_a_stop_pushes_no_other_out(home):
    """And goes with the next one, so that a run stopped every day has those of no other."""
    keep = "training.save_every=2", "training.keep=2"
    for step in (5, 7):

        def interfere(done, step=step):
            if done == step:
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(StoppedError):
            train(home, *keep, steps=9, told=Told(interfere))
        found = [int(path.name[5:]) for path in list_checkpoints(base(home))]
        assert found == [2, 4, 5] if step == 5 else [4, 6, 7]
    train(home, *keep, steps=9)
    assert [path.name[-1] for path in list_checkpoints(base(home))] == ["8", "9"]


class KilledError(Exception):
    """Stands for a kill: nothing is saved on the way out."""


def killing_at(step):
    def interfere(done):
        if done == step:
            raise KilledError

    return interfere


def test_killed_and_resumed_ends_in_the_same_bytes(home, undisturbed):
    with pytest.raises(KilledError):
        train(home, DROPOUT, KEEP_ALL, told=Told(killing_at(3)))
    assert [row["step"] for row in rows(base(home))] == [1, 2, 3]
    told = Told()
    train(home, DROPOUT, KEEP_ALL, told=told)
    assert (told.before, told.done, told.total) == (2, 5, 5)
    same_as_undisturbed(home, undisturbed)


def test_garbage_is_looked_for_among_new_objects_alone(home, monkeypatch):
    """Through all that torch loads it would take as long as several steps, again and again."""
    monkeypatch.setattr(training_loop, "gc", gc)
    gc.unfreeze()
    frozen = {}
    told = Told(lambda done: frozen.update({done: gc.get_freeze_count()}))
    train(home, told=told)
    assert all(count > 10_000 for done, count in frozen.items() if done)
    with pytest.raises(KilledError):
        train(home, name="killed", told=Told(killing_at(2)))
    assert gc.get_freeze_count() == 0
    gc.freeze()  # for the other tests


def test_a_damaged_checkpoint_is_passed_over_and_the_end_is_the_same(home, undisturbed):
    train(home, DROPOUT, KEEP_ALL, steps=4)
    damaged = base(home) / "checkpoints/step-00000004/model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    told = Told()
    train(home, DROPOUT, KEEP_ALL, told=told)
    assert any("continuing from the checkpoint before it" in line for line in told.lines)
    same_as_undisturbed(home, undisturbed)


def test_grids_and_selection_change_no_byte(home, undisturbed):
    write_judge(home / "runs/judge")
    train(
        home, DROPOUT, KEEP_ALL, "training.grid_every=2",
        select="fid", select_num=6, select_every=2, features="judge",
    )  # fmt: skip
    made = sorted(path.name for path in (base(home) / "samples").iterdir())
    assert made == [f"step-0000000{step}.png" for step in (2, 4, 5)]
    assert (base(home) / "best.safetensors").is_file()
    ours, theirs = left(base(home)), left(base(undisturbed[0]))
    losses = [row for row in ours.pop("metrics") if "loss" in row]
    assert losses == theirs.pop("metrics")
    assert ours == theirs


def test_each_setting_that_selection_samples_with_has_a_value(home):
    write_judge(home / "runs/judge")
    told = Told()
    train(
        home, "sampling.sampler=ddim", steps=1,
        select="fid", select_num=6, select_every=1, features="judge", told=told,
    )  # fmt: skip
    (said,) = [line for line in told.lines if "--select fid every 1 step" in line]
    assert "sampler ddim" in said
    assert " ," not in said


def test_a_finished_run_returns_at_once(undisturbed):
    home, _ = undisturbed
    before, told = left(base(home)), Told()
    result = train(home, DROPOUT, KEEP_ALL, told=told)
    assert (result.steps, result.loss, told.total) == (5, None, 0)
    assert any("trained to step 5 already" in line for line in told.lines)
    assert left(base(home)) == before


def test_more_steps_continue_a_run_which_needs_no_preset(home, undisturbed):
    told = Told()
    train(home, DROPOUT, KEEP_ALL, steps=2)
    train(home, preset=None, small=(), told=told)
    assert not [line for line in told.lines if "learning rate" in line]
    same_as_undisturbed(home, undisturbed)


def test_another_configuration_or_other_data_under_the_same_name_are_refused(home):
    train(home, DROPOUT, steps=1)
    before = left(base(home))
    with pytest.raises(WouldOverwriteError, match=r"model\.dropout was 0\.2, is 0"):
        train(home, "model.dropout=0.0", steps=1)
    write_data(home / "other.h5", seed=7)
    with pytest.raises(WouldOverwriteError, match="data was"):
        train(home, DROPOUT, steps=2, data=home / "other.h5")
    assert left(base(home)) == before


def test_data_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    write_store(tmp_path / "data.h5", "prepared", {"train": arrays(8, (16, 32))})
    with pytest.raises(MismatchError, match=r"has images of 16, 32, the stage needs 8"):
        train(tmp_path)
    with pytest.raises(MissingError, match="nowhere"):
        train(tmp_path, data=tmp_path / "nowhere.h5")
    (tmp_path / "text.h5").write_text("no store")
    with pytest.raises(BadInputError, match=r"text\.h5"):
        train(tmp_path, data=tmp_path / "text.h5")
    write_store(tmp_path / "half.h5", "prepared", {"train": arrays(90, (8,))}, blocks=1)
    with pytest.raises(MissingError, match="unfinished"):
        train(tmp_path, data=tmp_path / "half.h5")
    assert not (tmp_path / "runs").exists()


def test_mirroring_is_said_and_can_be_left_out(home, monkeypatch):
    drawn, real = [], draws.draw

    def draw(*batch, **more):
        drawn.append(real(*batch, **more).flip)
        return real(*batch, **more)

    monkeypatch.setattr("cdm_cli.jobs.training.objective.draw", draw)
    told, plain = Told(), Told()
    train(home, told=told)
    assert 0 < torch.stack(drawn).float().mean() < 1
    drawn.clear()
    train(home, name="plain", flip=False, told=plain)
    assert not torch.stack(drawn).any()
    assert [any("mirrored" in line for line in each.lines) for each in (told, plain)] == [
        True,
        False,
    ]
    with pytest.raises(WouldOverwriteError, match=r"training\.flip was false, is true"):
        train(home, name="plain", steps=6)


def test_a_name_must_be_one_word(tmp_path):
    for name in ("a/b", "..", "-x", ""):
        with pytest.raises(UsageError, match="NAME"):
            train(tmp_path, name=name)


def spoilt(monkeypatch, spoil):
    """Let spoil(call, losses) change the losses of each call, 1, 2, …, of the objective."""
    calls, real = [], Stage.compute_losses

    def losses(self, *inputs):
        calls.append(None)
        return spoil(len(calls), real(self, *inputs))

    monkeypatch.setattr(Stage, "compute_losses", losses)


def test_a_step_that_is_not_finite_is_skipped(home, monkeypatch):
    """One example of the batch is enough; the weights and moments stay as they were."""

    def spoil(call, losses):
        spoilt_one = torch.ones_like(losses)
        spoilt_one[0] = float("inf") if call == 2 else 1
        return losses * spoilt_one

    spoilt(monkeypatch, spoil)
    result = train(home, KEEP_ALL, "training.save_every=1", steps=3)
    assert result.skipped_steps == 1
    one, three = list_checkpoints(base(home))
    moments = [tensors(path, "optimizer") for path in (one, three)]
    assert [float(found["step"]) for found in moments] == [1, 2]
    assert not equal(tensors(one, "model"), tensors(three, "model"))
    logged = rows(base(home))
    assert [row["skipped"] for row in logged] == [0, 1, 0]
    assert logged[1]["loss"] is None


def nan_from(monkeypatch, first, last=99):
    """Let the losses of these steps be no numbers, as those of ruined weights."""
    monkeypatch.setattr(training_loop, "DIVERGED_AFTER", 3)
    spoilt(monkeypatch, lambda call, x: x * (float("nan") if first <= call <= last else 1))


def test_training_that_diverges_ends_and_names_the_last_good_checkpoint(home, monkeypatch):
    nan_from(monkeypatch, 4)
    with pytest.raises(DivergedError, match="3 steps in a row, up to step 6, had") as diverged:
        train(home, KEEP_ALL, "training.save_every=1", steps=9)
    assert diverged.value.exit_code == 76
    _, two, three = list_checkpoints(base(home))  # and none of the streak
    assert diverged.value.kept == (
        f"the last good checkpoint is {two}; {three.name} holds the weights that gave them"
    )
    ema = (base(home) / "ema.safetensors").read_bytes()
    assert ema == (two / "ema.safetensors").read_bytes(), "what cdm sample takes"
    assert "training.lr (now 0.001)" in diverged.value.next


def test_a_streak_pushes_no_checkpoint_out(home, monkeypatch):
    nan_from(monkeypatch, 6)
    with pytest.raises(DivergedError, match="up to step 8"):
        train(home, "training.save_every=2", "training.keep=1", steps=9)
    assert [path.name[-1] for path in list_checkpoints(base(home))] == ["4"]


def test_weights_that_never_were_good_are_not_left_for_sampling(home, monkeypatch):
    nan_from(monkeypatch, 2)
    with pytest.raises(DivergedError) as diverged:
        train(home, "training.save_every=1", steps=9)
    assert diverged.value.kept == (
        "no good checkpoint was made; step-00000001 holds the weights that gave them"
    )
    assert not (base(home) / "ema.safetensors").exists()


def test_what_is_due_within_a_streak_is_saved_behind_it(home, monkeypatch):
    nan_from(monkeypatch, 4, 4)
    train(home, KEEP_ALL, "training.save_every=2", steps=6)
    assert [path.name[-1] for path in list_checkpoints(base(home))] == ["2", "5", "6"]


def test_a_stop_within_a_streak_saves_nothing(home, monkeypatch):
    nan_from(monkeypatch, 3, 4)
    told = Told(lambda done: signal.raise_signal(signal.SIGTERM) if done == 4 else None)
    with pytest.raises(StoppedError, match="after step 4") as stopped:
        train(home, KEEP_ALL, told=told)
    (good,) = list_checkpoints(base(home))
    assert stopped.value.kept == (
        "the last 2 steps were not finite, so this one is not saved; "
        f"the last good checkpoint is {good}"
    )


def test_a_run_that_ends_within_a_streak_says_so(home, monkeypatch):
    nan_from(monkeypatch, 5)
    with pytest.raises(DivergedError, match="the last step, step 5, had") as diverged:
        train(home)
    assert "more --steps" in diverged.value.next
    monkeypatch.undo()
    assert train(home, steps=6).skipped_steps == 0


def test_bad_steps_apart_from_each_other_do_not_end_the_run(home, monkeypatch):
    monkeypatch.setattr(training_loop, "DIVERGED_AFTER", 2)
    spoilt(monkeypatch, lambda call, losses: losses * (1 if call % 2 else float("nan")))
    assert train(home, steps=5).skipped_steps == 2


def out_of_memory(monkeypatch, most):
    """Let the device have memory for so many images."""
    real = Stage.compute_losses

    def losses(self, *inputs):
        if len(inputs[0].y) > most:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
        return real(self, *inputs)

    monkeypatch.setattr(Stage, "compute_losses", losses)


def numbers_left(directory):
    """Return weights, moments and losses, without how many images were asked for at a time."""
    return {name: found for name, found in left(directory).items() if not name.endswith(".json")}


def test_too_large_a_batch_is_taken_in_parts_and_gives_the_same(home, monkeypatch):
    whole = train(home, name="whole", steps=2)
    train(home, "training.micro_batch=2", name="asked", steps=2)
    out_of_memory(monkeypatch, 3)
    told = Told()
    parts = train(home, told=told, steps=2)
    said = [line for line in told.lines if "out of device memory" in line]
    assert len(said) == 1
    assert "the batch of 8 is now taken 2 images at a time" in said[0]
    assert numbers_left(home / "runs/asked") == numbers_left(base(home))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
    last = list_checkpoints(home / "runs/whole")[-1], list_checkpoints(base(home))[-1]
    ours, theirs = (tensors(path, "ema") for path in last)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("most", [8, 3])
def test_weights_drawn_beside_the_first_step_are_those_drawn_before_it(
    most, home, undisturbed, monkeypatch
):
    monkeypatch.setattr("cdm_cli.jobs.training.first_weights.is_worth_a_thread", lambda *_: True)
    out_of_memory(monkeypatch, most)
    told, threads = Told(), threading.active_count()
    asked = [] if most == 8 else ["training.micro_batch=2"]
    train(home, DROPOUT, KEEP_ALL, told=told)
    assert threading.active_count() == threads
    assert len([line for line in told.lines if "out of device memory" in line]) == len(asked)
    if not asked:
        return same_as_undisturbed(home, undisturbed)
    monkeypatch.undo()
    train(home, DROPOUT, KEEP_ALL, *asked, name="asked")
    assert numbers_left(home / "runs/asked") == numbers_left(base(home))


def test_a_run_that_goes_on_draws_no_weights(home, undisturbed, monkeypatch):
    monkeypatch.setattr("cdm_cli.jobs.training.first_weights.is_worth_a_thread", lambda *_: True)
    train(home, DROPOUT, KEEP_ALL, steps=2)
    filled = "cdm_cli.jobs.training.first_weights.FirstWeights.fill"
    monkeypatch.setattr(filled, lambda *_: pytest.fail("weights drawn anew"))
    train(home, DROPOUT, KEEP_ALL)
    same_as_undisturbed(home, undisturbed)


def test_what_ends_the_thread_that_draws_ends_the_run(home, monkeypatch):
    monkeypatch.setattr("cdm_cli.jobs.training.first_weights.is_worth_a_thread", lambda *_: True)

    def fail(*_):
        raise MemoryError("of the host")

    monkeypatch.setattr("cdm_cli.jobs.training.first_weights.build_net", fail)
    threads = threading.active_count()
    with pytest.raises(MemoryError, match="of the host"):
        train(home)
    assert threading.active_count() == threads


def test_an_exact_training_that_runs_out_of_memory_says_what_ends(home, monkeypatch):
    train(home, name="whole", steps=1, exact=True, batch_size=16)
    out_of_memory(monkeypatch, 1)
    told = Told()
    train(home, KEEP_ALL, told=told, steps=4, exact=True, batch_size=16)
    said = [line for line in told.lines if "out of device memory" in line]
    assert len(said) == 1
    assert "taken 1 image at a time; the result is the same to rounding, no longer to" in said[0]
    state = json.loads((list_checkpoints(base(home))[-1] / "state.json").read_text())
    assert state["resumed"] == [
        {"step": 0, "before": {"micro_batch": 2}, "now": {"micro_batch": 1}}
    ]
    monkeypatch.undo()
    again = Told()
    train(home, KEEP_ALL, told=again, steps=5, exact=True, batch_size=16)
    assert not [line for line in again.lines if "undisturbed" in line], "it goes on in ones"


def test_the_network_is_compiled_once_it_is_known_what_fits(home, monkeypatch):
    sizes, compiled = [], Compute(compile=True)
    out_of_memory(monkeypatch, 3)
    short = Stage.compute_losses
    monkeypatch.setattr(
        Stage, "compute_losses", lambda self, *x: sizes.append(len(x[0].y)) or short(self, *x)
    )
    name = "cdm_cli.jobs.training.train.compile_net"
    monkeypatch.setattr(name, lambda net: sizes.append("compiled"))
    train(home, "training.micro_batch=2", name="asked", steps=2, compute=compiled)
    sizes.clear()
    told = Told()
    train(home, told=told, steps=2, compute=compiled)
    assert sizes == [8, 4, 2, 2, 2, 2, "compiled", *8 * [2]]
    said = [line.split()[0] for line in told.lines if line.startswith(("out of", "compiling"))]
    assert said == ["out", "compiling"]
    assert numbers_left(home / "runs/asked") == numbers_left(base(home))


def test_the_batch_that_fitted_is_remembered(home, monkeypatch):
    with monkeypatch.context() as patch:
        out_of_memory(patch, 4)
        train(home, KEEP_ALL, steps=2)
    train(home, KEEP_ALL, steps=3)
    state = json.loads((list_checkpoints(base(home))[-1] / "state.json").read_text())
    assert state["micro_batch"] == 4


def test_a_run_that_goes_on_takes_the_parts_that_are_asked_for_anew(home):
    train(home, KEEP_ALL, steps=2, exact=True, batch_size=16)
    told = Told()
    train(home, KEEP_ALL, "training.micro_batch=1", told=told, steps=3, exact=True, batch_size=16)
    state = json.loads((list_checkpoints(base(home))[-1] / "state.json").read_text())
    assert (state["micro_batch"], state["micro_batch_asked"]) == (1, 1)
    assert any("micro_batch was 2, now 1: from step 2 on" in line for line in told.lines)


def test_one_image_that_does_not_fit_is_the_end(home, monkeypatch):
    out_of_memory(monkeypatch, 0)
    with pytest.raises(MemoryFloorError, match="one image at a time") as floor:
        train(home)
    assert floor.value.exit_code == 69


@pytest.mark.parametrize(
    ("preset", "small"),
    [("tiny-sr8-16", SR), ("tiny-classifier", CLASSIFIER)],
)
def test_other_kinds_of_stages_resume_as_well(preset, small, home):
    settings = {"preset": preset, "small": small, "steps": 3}
    train(home, name="whole", **settings)
    with pytest.raises(KilledError):
        train(home, name="parts", told=Told(killing_at(2)), **settings)
    train(home, name="parts", **settings)
    assert left(home / "runs/whole") == left(home / "runs/parts")


def test_accuracy_of_a_classifier_is_logged_and_returned(home):
    settings = {"preset": "tiny-classifier", "small": CLASSIFIER, "name": "judge"}
    told = Told()
    result = train(home, steps=3, told=told, **settings)
    logged = {
        row["step"]: row["accuracy"] for row in rows(home / "runs/judge") if "accuracy" in row
    }
    assert list(logged) == [2, 3]
    assert result.accuracy == logged[3]
    assert f"step 3: {result.accuracy:.1%} of 12 val images are right" in told.lines
    again = train(home, steps=3, **settings)
    assert (again.accuracy, again.loss) == (result.accuracy, None)


def test_accuracy_is_that_of_the_averaged_weights_on_plain_images(home, monkeypatch):
    seen, real = [], ClassifierObjective.logits

    def logits(self, x):
        found = real(self, x)
        if not torch.is_grad_enabled():
            seen.append((x, found))
        return found

    monkeypatch.setattr(ClassifierObjective, "logits", logits)
    # Several processes add up their counts in place.
    monkeypatch.setattr(World, "sum_", lambda self, tensors, scalar, **how: scalar.add_(0))
    train(home, preset="tiny-classifier", small=CLASSIFIER, name="judge", steps=2)
    ((x, found),) = seen
    with open_store(home / "data.h5") as store:
        val = torch.from_numpy(store.parts["val"].images(16).copy()).permute(0, 3, 1, 2)
    torch.testing.assert_close(x, from_uint8(val))
    judge = load_stage("judge", home / "runs")
    assert isinstance(judge, ClassifierStage)
    torch.testing.assert_close(judge(x)[1], found)


def test_a_classifier_says_that_its_rate_falls_until_another_last_step(home):
    settings = {"preset": "tiny-classifier", "small": CLASSIFIER, "name": "judge"}
    told: list[list[str]] = []
    for steps in (2, 4, 4, 3):
        report = Told()
        train(home, **settings, steps=steps, told=report)
        told.append([line for line in report.lines if "learning rate" in line])
    line = "--steps was 2, is 4: after step 2 the learning rate falls towards 0 until step 4, "
    assert told == [[], [f"{line}no longer until step 2"], [], []]


def test_logits_that_are_not_finite_are_no_accuracy(home, monkeypatch):
    """The largest of NaN is the first: every image would be called by class 0."""
    told, real = Told(), ClassifierObjective.logits

    def logits(self, x):
        found = real(self, x)
        return found if torch.is_grad_enabled() else found * torch.nan

    monkeypatch.setattr(ClassifierObjective, "logits", logits)
    settings = {"preset": "tiny-classifier", "small": CLASSIFIER, "name": "judge"}
    result = train(home, steps=2, told=told, **settings)
    assert result.accuracy is None
    assert "step 2 is not tested: the average gives logits that are not finite" in told.lines
    assert not [row for row in rows(home / "runs/judge") if "accuracy" in row]


def test_a_classifier_without_val_has_no_accuracy(tmp_path):
    write_store(tmp_path / "data.h5", "prepared", {"train": arrays(12, (8,))})
    result = train(tmp_path, preset="tiny-classifier", small=CLASSIFIER, steps=1)
    assert result.accuracy is None


def test_a_plan_refuses_a_judge_that_is_not_here(home):
    with pytest.raises(
        MissingError, match=r"nobody.* Next: cdm train features --preset classifier"
    ):
        plan(options(home, select="fid", select_num=6, features="nobody"), Told())


@pytest.mark.parametrize(
    ("free", "said"), [(2**40, ""), (2**31, "training.micro_batch=16 takes less"), (2**29, "more")]
)
def test_a_training_that_the_system_may_kill_says_so_first(free, said, monkeypatch):
    monkeypatch.setattr(host_memory, "measure_free_memory", lambda: free)
    report = Told()
    cost.tell_memory(preset("cifar-base16"), torch.device("cpu"), 1, report)
    assert [line.endswith(said) for line in report.lines] == [True] * bool(said)
    cost.tell_memory(preset("tiny-base8"), torch.device("cpu"), 1, report)
    assert len(report.lines) == bool(said)


def test_a_plan_writes_nothing_and_knows_the_cost(home, monkeypatch):
    monkeypatch.setattr("cdm_cli.jobs.judging.header.find_weights", lambda file: file)
    found = plan(options(home, select="fid", select_num=6, select_every=2), Told())
    assert found["network_evaluations"] == 5 * 8
    assert (found["judgements"], found["judging_evaluations"]) == (3, 3 * 6 * 3)
    assert not (home / "runs").exists()


def test_that_samples_are_no_real_images_is_said(tmp_path):
    lines = {}
    for kind, part in (("samples", ""), ("prepared", "train")):
        home, told = tmp_path / kind, Told()
        home.mkdir()
        write_store(home / "data.h5", kind, {part: arrays(16, (8,))})
        train(home, steps=1, told=told)
        lines[kind] = [line for line in told.lines if "holds samples, no real images" in line]
    assert (len(lines["samples"]), lines["prepared"]) == (1, [])


def test_classes_without_images_are_named_at_the_start_and_recorded(tmp_path):
    gap = arrays(16, (8, 16)) | {"labels": torch.arange(16).numpy() % 2 * 2}
    write_store(tmp_path / "data.h5", "prepared", {"train": gap, "val": arrays(6, (8, 16))})
    told = Told()
    train(tmp_path, told=told, steps=1)
    data = json.loads((base(tmp_path) / "stage.json").read_text())["data"]
    assert data["without_images"] == [1]
    line = f"{tmp_path}/data.h5: 1 of 3 classes without an image: 'ring' (id 1)"
    assert told.lines.count(line) == 1


@pytest.mark.parametrize("classes", [1, 2])
def test_a_classifier_of_one_class_is_told_that_it_learns_nothing(classes, tmp_path):
    shown = arrays(16, (8,)) | {"labels": torch.arange(16).numpy() % classes}
    write_store(tmp_path / "data.h5", "prepared", {"train": shown})
    told = Told()
    train(tmp_path, preset="tiny-classifier", small=CLASSIFIER, name="judge", steps=1, told=told)
    said = [line for line in told.lines if "nothing to tell apart" in line]
    assert len(said) == (classes == 1)


def test_what_was_applied_to_a_stage_outlives_its_training(tmp_path):
    write_data(tmp_path / "data.h5")
    train(tmp_path, preset="tiny-sr8-16", small=SR, name="sr", steps=2)
    directory = tmp_path / "runs/sr"
    found = Applied(s=5, augment="non-truncated", by="sweep")
    file = read_stage_file(directory)
    write_stage_file(directory, file.model_copy(update={"applied": (found,), "in_force": 1}))
    train(tmp_path, preset="tiny-sr8-16", small=SR, name="sr", steps=3)
    file = read_stage_file(directory)
    assert (file.applied, file.in_force) == ((found,), 1)
