"""Mirrors cdm_cli/jobs/sampling/judged_on.py: a stage may be judged on generated images."""

from contextlib import ExitStack

import pytest

from cdm_cli.data.store import open_store
from cdm_cli.errors import CdmError, MismatchError, MissingError, UsageError
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.judged_on import make_probe, open_generated
from cdm_cli.options.sampling import Sampling
from tests.tiny import CLASSES, Told, arrays_of, base_config, sr_config, write_store

FLAGS = ("--num", "--s")


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def header(config, tmp_path):
    return Header(tmp_path / "runs/x", config, CLASSES)


def test_generated_images_are_enlarged_instead_of_real_ones(tmp_path, stack):
    sr = header(sr_config(), tmp_path)
    parts = {"train": arrays_of(10, (8, 16)), "val": arrays_of(10, (8, 16), seed=1)}
    data = write_store(tmp_path / "data.h5", "prepared", parts)
    real = stack.enter_context(open_store(data))
    path = write_store(tmp_path / "low.h5", "samples", {"": arrays_of(12, (8,), seed=5)})
    generated = open_generated(path, sr, stack, "--lowres", 6, Told())
    assert generated is not None
    on_real = make_probe(sr, real, 6, 7, Sampling(), FLAGS)
    on_those = make_probe(sr, None, 6, 7, Sampling(), FLAGS, generated)
    assert on_those.list_settings()["lowres"] == "generated"
    assert on_those.identity["lowres_digest"] == generated.digest
    assert "lowres_digest" not in on_real.identity  # of before: those judged then are continued
    ours, theirs = (probe.make_inputs(range(6)).z_s for probe in (on_those, on_real))
    assert ours is not None
    assert theirs is not None
    assert not bool((ours == theirs).all())
    assert on_those.make_inputs(range(6)).ids.tolist() == list(range(6))
    with pytest.raises(UsageError, match=r"--num 13: .*low\.h5 has 12 images to enlarge"):
        make_probe(sr, None, 13, 7, Sampling(), FLAGS, generated)


def test_none_is_real_images(tmp_path, stack):
    assert open_generated(None, header(sr_config(), tmp_path), stack, "--lowres", 6, Told()) is None


@pytest.mark.parametrize(
    ("config", "name", "error", "told"),
    [
        (base_config(), "low.h5", UsageError, r"--lowres .*low\.h5: .* is a base stage, which enl"),
        (
            sr_config(),
            "large.h5",
            MismatchError,
            r"--lowres .*large\.h5 does not fit .* starts f",
        ),
        (sr_config(), "none.h5", MissingError, r"none\.h5"),
        (sr_config(), "begun.h5", CdmError, "begun.h5"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, stack, config, name, error, told):
    write_store(tmp_path / "low.h5", "samples", {"": arrays_of(12, (8,))})
    write_store(tmp_path / "large.h5", "samples", {"": arrays_of(12, (16,))})
    write_store(tmp_path / "begun.h5", "samples", {"": arrays_of(130, (8,))}, blocks=1)
    with pytest.raises(error, match=told):
        open_generated(tmp_path / name, header(config, tmp_path), stack, "--lowres", 6, Told())
