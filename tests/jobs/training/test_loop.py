"""Mirrors cdm_cli/jobs/training/loop.py: the way of a batch from the loop to the loss is short."""

import sys

from cdm_cli.cascade.stage import Stage
from cdm_cli.data.batches import TrainBatch
from tests.trained import train, write_data


def holds_a_batch(value):
    """Return whether a local variable is a batch, or a tuple with one."""
    return isinstance(value, TrainBatch) or (
        isinstance(value, tuple) and any(map(holds_a_batch, value))
    )


def functions_with_a_batch(frame):
    """Return the functions with a batch that were called on the way to a frame, outermost first.

    A function and those that are defined within it count as one.
    """
    found = []
    while frame is not None:
        name = frame.f_code.co_qualname.partition(".<locals>")[0]
        package = frame.f_globals.get("__name__", "").startswith("cdm_cli.")
        if package and any(map(holds_a_batch, frame.f_locals.values())) and name not in found:
            found.insert(0, name)
        frame = frame.f_back
    return found


def test_a_batch_goes_through_three_functions_from_the_loop_to_the_loss(tmp_path, monkeypatch):
    ways, compute_losses = [], Stage.compute_losses

    def watched(self, batch, draws):
        ways.append(functions_with_a_batch(sys._getframe(1)))
        return compute_losses(self, batch, draws)

    monkeypatch.setattr(Stage, "compute_losses", watched)
    write_data(tmp_path / "data.h5")
    train(tmp_path, "training.micro_batch=4", steps=2)
    first, rest = ways[:2], ways[2:]
    way = ["Trainer.step", "Gradients.compute", "Gradients._compute_micro_batch"]
    assert first == 2 * [["Loop._take_first_step", *way]]
    assert rest == 2 * [way]
