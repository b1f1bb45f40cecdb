"""Training in two processes beside the same in one; `processes.py` has four and eight."""

import shutil
import zipfile

import pytest

from tests.jobs.training import processes
from tests.jobs.training.processes import KEEP_ALL, asked, bits, train_in
from tests.jobs.training.test_keys import OLD
from tests.trained import SR, options, rows, write_data

OLD_LOSSES = [4.475385189, 0.998791277, 2.803512096]  # of two processes, from step 3


@pytest.fixture(scope="module")
def home(tmp_path_factory, pair):
    """Train all there is in one process, then the same in two."""
    home = tmp_path_factory.mktemp("home")
    write_data(home / "data.h5")
    with zipfile.ZipFile(OLD) as file:
        file.extractall(home, [name for name in file.namelist() if name.startswith("runs/sr/")])
    old = "model.dropout=0.2", KEEP_ALL

    def trainings(num):
        for kind in ("base", "sr"):
            yield asked(home, kind, f"exact-{kind}-{num}", exact=True, steps=3)
        yield asked(home, "sr", f"plain-sr-{num}", steps=3)

    train_in(1, *trainings(1), asked(home, "base", "moved", exact=True, steps=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "launch_processes", pair.launch)
        train_in(
            2,
            *trainings(2),
            asked(home, "base", "moved", steps=2),
            options(home, *old, name="sr", preset="tiny-sr8-16", small=SR),
        )
    return home


@pytest.mark.parametrize("kind", ["base", "sr"])
def test_an_exact_training_has_the_same_bits_in_two_processes(kind, home):
    one, two = (bits(home / f"runs/exact-{kind}-{processes}") for processes in (1, 2))
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


def test_any_training_sees_the_same_images_with_the_same_noise(home):
    one, two, exact = (
        [(row["loss"], row["grad_norm"]) for row in rows(home / "runs" / name)]
        for name in ("plain-sr-1", "plain-sr-2", "exact-sr-1")
    )
    for other in (two, exact):
        for mine, others in zip(one, other, strict=True):
            assert mine == pytest.approx(others, rel=1e-4)


def test_an_exact_training_goes_on_in_another_number_of_processes(home):
    told = train_in(1, asked(home, "base", "moved", steps=3))
    assert not [line for line in told.lines if "undisturbed" in line]
    shutil.rmtree(home / "runs/moved/checkpoints/step-00000001")
    assert bits(home / "runs/moved") == bits(home / "runs/exact-base-1")


def test_an_older_training_of_two_processes_goes_on_with_its_keys(home):
    losses = [row["loss"] for row in rows(home / "runs/sr")]
    assert losses == pytest.approx(OLD_LOSSES, rel=1e-6)
