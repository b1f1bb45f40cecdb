"""Stages trained for seconds on one GPU, and the cascade that they draw there undisturbed."""

from pathlib import Path

import pytest

from cdm_cli.jobs.demo.drawing import write_images
from cdm_cli.jobs.prepare import prepare
from cdm_cli.jobs.training import train
from cdm_cli.options.files import PrepareOptions
from cdm_cli.options.training import TrainOptions
from tests.asking import as_typed
from tests.cuda.steps import cascade
from tests.tiny import Told

CONTINUOUS = ("time_input=sqrt_alpha_bar", "loss=simple", "variance=small")
OFTEN = ("training.save_every=30", "training.grid_every=30", "training.log_every=10")
CHOSEN = {"select": "fid", "select_num": 64, "select_every": 30, "features": "features"}


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A directory with drawn images, a classifier, and both stages of a cascade."""
    where = tmp_path_factory.mktemp("cuda")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        write_images(Path("train.zip"), per_class=32, resolution=32, seed=0)
        write_images(Path("val.zip"), per_class=16, resolution=32, seed=1)
        prepared = {"src": Path("train.zip"), "val": Path("val.zip"), "resolutions": (8, 16)}
        prepare.run(as_typed(PrepareOptions, **prepared), Told())
        for name, preset, more, chosen in (
            ("features", "tiny-classifier", (), {}),
            ("base", "tiny-base8", OFTEN, CHOSEN),
            ("sr", "tiny-sr8-16", (*OFTEN, *CONTINUOUS), CHOSEN),
        ):
            options = {"name": name, "preset": preset, "overrides": more, "steps": 60, **chosen}
            train.run(as_typed(TrainOptions, **options), Told())
    return where


@pytest.fixture(autouse=True)
def here(home, monkeypatch):
    """Work in that directory; every test has names of its own there."""
    monkeypatch.chdir(home)


@pytest.fixture(scope="session")
def one(home):
    """Draw, enlarge, sweep and judge on one GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for run, options in cascade("one"):
            run(options, Told())
