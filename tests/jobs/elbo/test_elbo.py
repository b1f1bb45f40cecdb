"""Mirrors cdm_cli/jobs/elbo/elbo.py.

The numbers are those of cascade/elbo.py on the same images.

Here too: plan.py, result.py.
"""

import signal
from pathlib import Path

import pytest
import torch

from cdm_cli.cascade.chain import build_chain
from cdm_cli.cascade.conditioning import draw_non_truncated
from cdm_cli.cascade.elbo import bound, estimate_mean_and_error, join_bounds
from cdm_cli.cascade.generate import SampleInputs
from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.config import ScheduleConfig
from cdm_cli.data.pixels import from_uint8
from cdm_cli.errors import BadInputError, MismatchError, MissingError, StoppedError, UsageError
from cdm_cli.jobs.elbo.elbo import plan, run
from cdm_cli.options.judging import ElboOptions
from cdm_cli.options.sampling import Compute, Sampling
from tests.asking import as_typed
from tests.tiny import (
    Told,
    arrays_of,
    base_config,
    continuous_config,
    net_of,
    sr_config,
    stage_of,
    write_stage,
    write_store,
)

BASE, SR, LARGE = base_config(), sr_config(), continuous_config(16, 32)
VAL = arrays_of(40, (8, 16, 32), seed=1)
IDS, Y = torch.from_numpy(VAL["ids"]), torch.from_numpy(VAL["labels"])


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, config in (("base", BASE), ("sr", SR), ("large", LARGE)):
        write_stage(tmp_path / "runs" / name, config)
    write_store("data.h5", "prepared", {"train": arrays_of(8, (8, 16, 32)), "val": VAL})
    return tmp_path


def options(*stages, batch_size=16, **changes):
    compute = Compute(device="cpu", batch_size=batch_size)
    values = {"stages": stages or ("base",), "compute": compute}
    return as_typed(ElboOptions, **(values | changes))


def images(resolution):
    return torch.from_numpy(VAL[f"images/{resolution}"]).permute(0, 3, 1, 2)


def test_a_base_stage_on_all_validation_images():
    told = Told()
    result = run(options(terms=6), told)
    chain = build_chain(BASE, Sampling(steps=0))
    expected = bound(
        stage_of(BASE), chain, from_uint8(images(8)), SampleInputs(IDS, Y), seed=0, terms=6
    )
    (row,) = result.rows
    assert (row.stage, row.resolution, row.s, row.above) == ("base", 8, None, 0)
    mean, error = estimate_mean_and_error(expected.total)
    assert row.bits_per_dim == pytest.approx(mean, rel=1e-4)
    assert row.error == pytest.approx(error, rel=1e-3)
    assert row.prior + row.divergences + row.decoder == pytest.approx(row.bits_per_dim)
    assert (result.num, result.split, result.steps, result.terms) == (40, "val", (20,), (6,))
    assert told.done == told.total == 40 * 6


def test_batch_size_and_the_choice_of_images_change_no_image():
    all_of_them = run(options(terms=5, batch_size=64), Told()).rows[0]
    in_parts = run(options(terms=5, batch_size=7), Told()).rows[0]
    assert in_parts.bits_per_dim == pytest.approx(all_of_them.bits_per_dim, rel=1e-5)
    fewer = run(options(terms=5, num=10), Told()).rows[0]
    assert fewer.error > all_of_them.error


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    whole = run(options(terms=4, batch_size=16), Told())
    sizes = []

    def limited(stage, chain, x_0, *args, **how):
        sizes.append(len(x_0))
        if len(x_0) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return bound(stage, chain, x_0, *args, **how)

    monkeypatch.setattr("cdm_cli.jobs.elbo.elbo.bound", limited)
    told = Told()
    halved = run(options(terms=4, batch_size=16), told)
    assert sizes[:3] == [16, 8, 4]
    assert set(sizes[2:]) == {4}
    assert "out of device memory: now 4 images at a time" in told.lines
    assert halved.rows[0].bits_per_dim == pytest.approx(whole.rows[0].bits_per_dim, rel=1e-6)


def test_a_network_that_gives_what_is_not_finite_bounds_nothing():
    """Else the row would have no numbers, and no word of why."""
    state = {name: 1e18 * value for name, value in net_of(BASE, 0).state_dict().items()}
    save_ema(Path("runs/base"), state, step=2)
    with pytest.raises(BadInputError, match="base gives images that are not finite"):
        run(options(terms=4), Told())


def test_a_super_resolution_stage_at_s():
    result = run(options("sr", s=(7,), terms=0), Told())
    z_s = draw_non_truncated(SR, images(8), 7, ids=IDS, seed=0)
    samples = SampleInputs(IDS, Y, z_s, torch.full_like(IDS, 7))
    expected = bound(
        stage_of(SR), build_chain(SR, Sampling(steps=0)), from_uint8(images(16)), samples, seed=0
    )
    assert result.rows[0].bits_per_dim == pytest.approx(expected.total.mean().item(), rel=1e-4)
    assert result.terms == (20,)


def test_a_cascade_is_eq_3():
    result = run(options("base", "sr", "large", s=(7,), terms=4), Told())
    low, middle, large, whole = result.rows
    assert [row.above for row in result.rows] == [7, 0, 0, 0]
    assert [row.s for row in result.rows] == [None, 7, 0, None]
    assert low.decoder is None
    assert middle.decoder is not None
    dims = [3 * row.resolution**2 for row in (low, middle, large)]
    bits = [row.bits_per_dim * dim for row, dim in zip((low, middle, large), dims, strict=True)]
    assert whole.stage == "cascade"
    assert whole.bits_per_dim == pytest.approx(sum(bits) / dims[-1], rel=1e-6)
    assert whole.error > 0


def test_the_error_of_a_cascade_knows_that_its_parts_share_images():
    result = run(options("base", "sr", s=(7,), terms=4), Told())
    chain = build_chain(BASE, Sampling(steps=0), visit=(7,))
    low = bound(
        stage_of(BASE), chain, from_uint8(images(8)), SampleInputs(IDS, Y), seed=0, terms=4, s=7
    )
    z_s = draw_non_truncated(SR, images(8), 7, ids=IDS, seed=0)
    high = bound(
        stage_of(SR), build_chain(SR, Sampling(steps=0)), from_uint8(images(16)),
        SampleInputs(IDS, Y, z_s, torch.full_like(IDS, 7)), seed=0, terms=4,
    )  # fmt: skip
    mean, error = estimate_mean_and_error(join_bounds([low, high], [192, 768]))
    assert result.rows[-1].bits_per_dim == pytest.approx(mean, rel=1e-4)
    assert result.rows[-1].error == pytest.approx(error, rel=1e-3)


def test_a_respaced_chain_and_its_variance():
    result = run(
        options("base", "sr", s=(7,), sampling=Sampling(steps=5, variance="small")), Told()
    )
    assert result.steps == (6, 5)  # the base visits s = 7 as well
    assert result.variance == ("small", "small")


def test_plan_counts_what_run_evaluates():
    asked, told = options("base", "sr", s=(7,), terms=4), Told()
    run(asked, told)
    planned = plan(asked, Told())
    assert sum(row["evaluations"] for row in planned["stages"]) == told.done == 2 * 4 * 40


def test_a_stop_is_obeyed_at_the_next_evaluation():
    told = Told(lambda done: signal.raise_signal(signal.SIGTERM) if done < 20 else None)
    with pytest.raises(StoppedError, match="SIGTERM"):
        run(options(), told)
    assert told.done == 16


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"terms": 1}, UsageError, "--terms 1"),
        ({"s": (3,)}, UsageError, "0 super-resolution"),
        ({"num": 41}, UsageError, "40 images"),
        ({"split": "test"}, UsageError, "train and val"),
        ({"sampling": Sampling(sampler="ddim")}, UsageError, "ancestral"),
        ({"sampling": Sampling(restart_from=5)}, UsageError, "ancestral"),
        ({"sampling": Sampling(weights="best")}, MissingError, "best"),
        ({"stages": ("sr",)}, UsageError, "--s is missing"),
        ({"stages": ("sr",), "s": (21,)}, UsageError, "--s 21"),
        ({"stages": ("nowhere",)}, MissingError, "nowhere"),
        ({"stages": ("base", "large")}, MismatchError, "makes 8×8"),
        ({"stages": ("sr", "base"), "s": (3,)}, MismatchError, "is a base stage"),
    ],
)
def test_what_cannot_be_bounded_is_refused_before_any_weight_is_loaded(changes, error, message):
    told = Told()
    with pytest.raises(error, match=message):
        run(options(**changes), told)
    assert told.total == 0


def test_the_advice_has_an_s_for_each_stage(workspace):
    write_stage(workspace / "runs/top", sr_config(16, 32))
    for s, next in (((7,), "--s 7,5:"), ((7, 21), "--s 7,20:"), ((30, 5), "--s 20,5:")):
        with pytest.raises(UsageError) as caught:
            run(options("base", "sr", "top", s=s), Told())
        assert caught.value.next.startswith(next)
    for stages, has, next in (
        (("base",), "0 super-resolution stages", "leave out --s"),
        (("base", "sr"), "1 super-resolution stage", "--s 20:"),
    ):
        with pytest.raises(UsageError, match=f"2 times for {has} — Next") as caught:
            run(options(*stages, s=(21, 3)), Told())
        assert caught.value.next.startswith(next)


def test_stages_and_data_must_fit(workspace):
    write_stage(workspace / "runs/bigger", base_config(64))
    with pytest.raises(MismatchError, match="takes 64"):
        run(options("bigger"), Told())
    write_stage(workspace / "runs/others", BASE, classes=("a", "b", "c"))
    with pytest.raises(MismatchError, match="class 0"):
        run(options("others"), Told())


def test_a_cascade_is_split_only_where_both_processes_agree(workspace):
    write_stage(workspace / "runs/warmer", base_config(schedule=ScheduleConfig(T=30)))
    with pytest.raises(MismatchError, match="s = 7"):
        run(options("warmer", "sr", s=(7,)), Told())
    assert run(options("warmer", "sr", s=(0,), terms=2), Told()).rows[-1].stage == "cascade"


def test_an_unfinished_store_is_refused(workspace):
    write_store("half.h5", "prepared", {"train": VAL, "val": VAL}, block_size=16, blocks=1)
    with pytest.raises(MissingError, match="unfinished"):
        run(options(ref=workspace / "half.h5"), Told())
