"""The share of validation images that a classifier's averaged weights call by their label."""

from collections.abc import Callable
from math import nan

import torch
from torch import Tensor

from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.data.pixels import from_uint8
from cdm_cli.data.store import Store
from cdm_cli.jobs.judging.images import ImageSet, from_part, read_batches
from cdm_cli.jobs.training.log import Metrics
from cdm_cli.jobs.training.objective import ClassifierObjective
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.nets.classifier import Classifier
from cdm_cli.nets.memory import Halving
from cdm_cli.units import format_count

ACCURACY = "accuracy"


def find_val_images(store: Store, resolution: int) -> ImageSet | None:
    """Return all val images at a resolution, on which a classifier is tested; None without val."""
    val = store.parts.get("val")
    return None if val is None else from_part(store, "val", val, resolution, None, 0)


class Accuracy:
    """Logs top-1 accuracy at every checkpoint, in float32 and without augmentation.

    there: the accuracies that `metrics.jsonl` has, by step. find_stop: returns what asks the run to
    stop, "" for nothing.
    """

    def __init__(
        self,
        images: ImageSet,
        trainer: Trainer,
        there: dict[int, float],
        find_stop: Callable[[], str],
    ) -> None:
        self.every = trainer.training.save_every
        self._images, self._trainer = images, trainer
        self._there, self._find_stop = there, find_stop

    def is_missing(self, step: int) -> bool:
        """Whether `metrics.jsonl` has no accuracy of a step."""
        return step not in self._there

    def __call__(self, step: int, metrics: Metrics | None) -> None:
        """Test the averaged weights on all val images, each process its share; log their accuracy.

        Logs nothing if the run is asked to stop meanwhile, or where logits are not finite.
        """
        world, num = self._trainer.world, self._images.num
        right = self._count_right()
        if world.any(bool(self._find_stop())):
            return
        world.sum_([], right)
        if right.isnan():
            self._trainer.session.report.say(
                f"step {step} is not tested: the average gives logits that are not finite"
            )
            return
        self._there[step] = float(right) / num
        if metrics is not None:
            metrics.write({"step": step, ACCURACY: self._there[step]})
        self._trainer.session.report.say(
            f"step {step}: {self._there[step]:.1%} of {format_count(num, 'val image', 'are')} right"
        )

    @torch.no_grad()
    def _count_right(self) -> Tensor:
        """Return how many images of this process's share are right; float32, without shape.

        NaN where some logit is not finite.
        """
        trainer, session, device = self._trainer, self._trainer.session, self._trainer.device
        assert isinstance(trainer.objective, ClassifierObjective)
        net = build_empty_net(trainer.objective.net.config).to_empty(device=device).eval()
        assert isinstance(net, Classifier)
        trainer.ema.copy_to(net)
        judge = ClassifierObjective(net, trainer.training, "fp32")
        logits = Halving(lambda x: judge.logits(from_uint8(x)), device, session.report.say)
        right = torch.zeros((), device=device)
        labels = torch.from_numpy(self._images.labels).to(device)
        with session.report.track("judge val", self._images.num, "images") as advance:
            for places, batch in read_batches(self._images, session):
                found = logits(batch)
                y = labels[torch.from_numpy(places).to(device)]
                right += (found.argmax(1) == y).sum()
                right[~found.isfinite().all()] = nan  # argmax would call it the class of the NaN
                advance(len(places) * trainer.world.size, "")
                if self._find_stop():
                    break
        return right
