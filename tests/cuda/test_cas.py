"""A classifier of `cdm eval cas` on two GPUs: the steps of one on one GPU, replayed in each."""

import json
from pathlib import Path

import pytest

from cdm_cli.jobs.cas import cas
from cdm_cli.jobs.cas.recipe import NORM_IMAGES
from cdm_cli.options.cas import CasOptions
from tests.asking import as_typed
from tests.cuda.rig import needs, together
from tests.tiny import Told


def scoring(out: str) -> CasOptions:
    """Return how a score is made, each step of two batches for the norm."""
    return as_typed(
        CasOptions, store=Path("one-samples.h5"), net="resnet18", steps=20, seed=3,
        batch_size=2 * NORM_IMAGES, out=Path(out),
    )  # fmt: skip


def loss(out: str) -> float:
    """Return the mean loss of the last steps on samples."""
    return json.loads((Path(out) / "samples" / "outcome.json").read_text())["loss"]


@needs(2)
@pytest.mark.usefixtures("one")
def test_two_gpus_take_the_steps_of_one():
    cas.run(scoring("cas-one"), Told())
    together(cas.run_in, scoring("cas-two"), 2, Told())
    assert loss("cas-two") == pytest.approx(loss("cas-one"), rel=1e-6)
