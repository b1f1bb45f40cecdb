"""Mirrors cdm_cli/jobs/judging/judge.py: who may judge, and who is turned away."""

import sys
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType, SimpleNamespace

import pytest
import torch

from cdm_cli.errors import BadInputError, MismatchError, MissingError
from cdm_cli.jobs.judging import judge as evaluate_judge
from cdm_cli.jobs.judging.evaluate import run
from cdm_cli.jobs.judging.judge import open_judge
from cdm_cli.jobs.judging.rows import list_notes
from cdm_cli.metrics import inception
from cdm_cli.metrics.inception import FILES, TORCHSCRIPT
from cdm_cli.options.judging import FeatureOptions
from tests.asking import as_typed
from tests.jobs.judging.making import SAMPLES, options, write_judge, write_workspace
from tests.metrics.stand_in import save_stand_in
from tests.tiny import CLASSES, Told, base_config, write_stage, write_store

DEVICE = torch.device("cpu")


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_classifier_by_name_or_by_path(workspace):
    directory = write_judge(workspace / "runs/judge")
    by_name = open_judge(as_typed(FeatureOptions, features="judge"), DEVICE)
    by_path = open_judge(as_typed(FeatureOptions, features=str(directory)), DEVICE)
    assert by_name.classes == by_path.classes == CLASSES
    assert by_name.extractor.digest == by_path.extractor.digest
    assert by_name.extractor.name == "classifier-judge"
    assert by_name.extractor.feature_dim == 16
    write_judge(workspace / "runs/another", seed=1)
    other = open_judge(as_typed(FeatureOptions, features="another"), DEVICE)
    assert other.extractor.digest != by_name.extractor.digest


def test_a_stage_that_draws_is_no_judge(workspace):
    write_stage(workspace / "runs/base", base_config())
    with pytest.raises(MismatchError, match="a judge must be a classifier"):
        open_judge(as_typed(FeatureOptions, features="base"), DEVICE)
    with pytest.raises(MissingError, match="nothing"):
        open_judge(as_typed(FeatureOptions, features="nothing"), DEVICE)


class Foreign:
    """What a package may install as a judge."""

    name, digest, feature_dim, resize = "foreign", "f" * 64, 3, "none"

    def __init__(self, device):
        self.device = device

    def __call__(self, images):
        return images.float().mean((2, 3)), None


class Lacking:
    name, feature_dim = "lacking", 3

    def __init__(self, device):
        pass

    def __call__(self, images):
        return images, None


@pytest.fixture
def installed(monkeypatch):
    """An installed package with two entry points of the group that we read."""
    module = ModuleType("foreign_judges")
    module.Foreign, module.Lacking = Foreign, Lacking
    monkeypatch.setitem(sys.modules, "foreign_judges", module)
    there = EntryPoints(
        EntryPoint(name, f"foreign_judges:{kind}", "cdm.features")
        for name, kind in (("foreign", "Foreign"), ("lacking", "Lacking"), ("judge", "Foreign"))
    )
    monkeypatch.setattr(evaluate_judge, "entry_points", there.select)


@pytest.mark.usefixtures("installed")
def test_an_installed_extractor_judges(workspace):
    write_workspace(workspace)
    judge = open_judge(as_typed(FeatureOptions, features="foreign"), DEVICE)
    assert isinstance(judge.extractor, Foreign)
    assert judge.extractor.device == DEVICE
    table = run(options("fid", "kid", features="foreign"), Told()).table
    assert table.rows[0].convention.extractor_digest == "f" * 64
    with pytest.raises(MismatchError, match="foreign gives no class probabilities"):
        run(options("is", features="foreign"), Told())
    ours = open_judge(as_typed(FeatureOptions, features="judge"), DEVICE)
    assert not isinstance(ours.extractor, Foreign)  # a stage of the user comes first


@pytest.mark.usefixtures("installed")
def test_an_extractor_that_lacks_something_is_named():
    with pytest.raises(BadInputError, match="foreign_judges:Lacking lacks digest, resize"):
        open_judge(as_typed(FeatureOptions, features="lacking"), DEVICE)


def test_the_weights_of_inception_are_pinned():
    assert TORCHSCRIPT.name == "inception-2015-12-05.pt"
    assert TORCHSCRIPT.sha256 == "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
    assert FILES["clean"] is FILES["legacy-tensorflow"] is TORCHSCRIPT


@pytest.mark.parametrize("mode", ["clean", "legacy-tensorflow"])
def test_a_file_of_weights_is_taken_by_its_name_and_checked(workspace, monkeypatch, mode):
    file = save_stand_in(workspace)
    with pytest.raises(BadInputError, match="SHA-256"):  # it is not the real one
        open_judge(as_typed(FeatureOptions, features=file.name, mode=mode), DEVICE)
    monkeypatch.setitem(inception.FILES, mode, file)
    judge = open_judge(as_typed(FeatureOptions, features=file.name, mode=mode), DEVICE)
    assert (judge.extractor.name, judge.extractor.digest) == (f"inception-{mode}", file.sha256)
    assert judge.classes == ()


def test_inception_where_cleanfid_keeps_it(workspace, monkeypatch):
    """Found offline; the table says which mode, and which one the literature uses."""
    few = {name: array[:20] for name, array in SAMPLES.items()}
    write_store("samples.h5", "samples", {"": few})
    file = save_stand_in(workspace)
    monkeypatch.setattr(inception, "list_weights_places", lambda wanted: [workspace / file.name])
    monkeypatch.setitem(inception.FILES, "clean", file)
    table = run(options("is", features="inception", ref="samples.h5"), Told()).table
    convention = table.rows[0].convention
    assert (convention.extractor, convention.extractor_digest) == ("inception-clean", file.sha256)
    assert any("--mode legacy-tensorflow" in line for line in table.notes)
    literature = replace(convention, extractor="inception-legacy-tensorflow")
    extractor = SimpleNamespace(feature_dim=2048)
    assert not any("--mode" in line for line in list_notes(("is",), literature, extractor, []))
