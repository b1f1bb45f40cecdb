"""What tests of cas share."""

import pytest

from cdm_cli.jobs.cas import training as cas_training


@pytest.fixture
def trainings(monkeypatch):
    """The training sets whose training began in this process, by name."""
    names, real = [], cas_training.train

    def train(fit, training, *args):
        names.append(training.name)
        return real(fit, training, *args)

    monkeypatch.setattr(cas_training, "train", train)
    return names
