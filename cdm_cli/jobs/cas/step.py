"""One step of a classifier: SGD with momentum, decided by (seed, step) and the weights alone.

Batch norm sees `norm_images` images at a time, on whichever process: so the gradient does not
depend on how many processes share a step. Its running statistics, which only the test uses,
are those of the first process.
"""

from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import starmap
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm_cli.cascade.snapshot import Snapshot
from cdm_cli.cascade.stage import autocast
from cdm_cli.data.batches import TrainBatch
from cdm_cli.errors import MemoryFloorError, UsageError
from cdm_cli.jobs.cas.augment import CropDraws, augment, draw_crops
from cdm_cli.jobs.cas.recipe import CasRecipe
from cdm_cli.jobs.runtime.ordered import Tensors, add_tensors
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.step import compute_learning_rate
from cdm_cli.nets.kernels.recorded import Recorded
from cdm_cli.nets.memory import translate_memory_errors
from cdm_cli.nets.resnet import build_cas_network, count_together
from cdm_cli.plans import TrainingConfig
from cdm_cli.units import format_count


class Fit:
    """A classifier and its optimizer, taking one step at a time.

    Raises UsageError where the processes cannot share a batch.
    """

    def __init__(self, recipe: CasRecipe, device: torch.device, world: World) -> None:
        _check_shares(recipe, world)
        self.recipe, self.device, self.world = recipe, device, world
        self.local_batch = recipe.batch_size // world.size
        self.pieces = cut_for_norm(self.local_batch, recipe.norm_images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            net = build_cas_network(
                recipe.network, resolution=recipe.resolution, channels=recipe.channels,
                num_classes=recipe.num_classes,
            )  # fmt: skip
        # Convolutions in bf16 are several times faster with the channels last.
        order = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.net = net.to(device=device).to(memory_format=order)  # pyright: ignore[reportCallIssue]
        self.parameters = list(self.net.parameters())
        self._rates = TrainingConfig(
            steps=recipe.steps, batch_size=recipe.batch_size, lr=recipe.lr, warmup=recipe.warmup
        )
        self._optimizer = torch.optim.SGD(
            self._group_parameters(), lr=recipe.lr, momentum=recipe.momentum, fused=True
        )
        for parameter in self.parameters:  # so that a first step that is skipped leaves zeros
            self._optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        self._sums = torch.zeros(3, device=device, dtype=torch.float64)  # loss, taken, skipped
        on_gpu = device.type == "cuda"  # which waits for Python between two kernels
        self._gradients = Recorded(self._compute_share) if on_gpu else self._compute_share
        self.loss: float | None = None
        self.skipped = 0

    def _group_parameters(self) -> list[dict[str, Any]]:
        """Decay matrices only: gains and biases have no scale to lose."""
        wide = [p for p in self.parameters if p.ndim > 1]
        narrow = [p for p in self.parameters if p.ndim <= 1]
        return [
            {"params": wide, "weight_decay": self.recipe.weight_decay},
            {"params": narrow, "weight_decay": 0.0},
        ]

    def step(self, step: int, batch: TrainBatch) -> None:
        """Take step number `step` on this process's share of the batch.

        A step whose loss or gradient is not finite leaves the weights alone. Raises
        MemoryFloorError in every process where the images do not fit in one.
        """
        loss, fits = self._try(step, batch)
        if not self.world.agree(fits):
            taken = len(range(self.local_batch)[self.pieces[0]])
            raise MemoryFloorError(
                f"the memory of {self.device} does not hold {format_count(taken, 'image')} at a "
                "time",
                kept="the last checkpoint is complete",
                next="a smaller --net or --batch-size, with another -o",
            )
        self._update(step, loss)

    def _try(self, step: int, batch: TrainBatch) -> tuple[Tensor, bool]:
        try:
            with translate_memory_errors():
                return self.accumulate(step, batch), True
        except torch.OutOfMemoryError:
            return torch.zeros((), device=self.device), False

    def accumulate(self, step: int, batch: TrainBatch) -> Tensor:
        """Leave this process's part of a step's gradient in `grad`; return its part of the loss."""
        first = self.world.rank * self.local_batch
        draws = draw_crops(self.recipe, step).take_rows(slice(first, first + self.local_batch))
        total, *grads = self._gradients(batch.x_0, batch.y, draws.to(self.device))
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad
        assert total is not None
        return total

    def _compute_share(self, x_0: Tensor, y: Tensor, draws: CropDraws) -> Tensors:
        """Return the loss, and its gradient for each parameter, each the sum over all pieces."""
        with _keep_casts(self.device), count_together(self.net, len(self.pieces)):
            labels = (y[rows] for rows in self.pieces)
            pieces = zip(self._augment(x_0, draws), labels, strict=True)
            return reduce(add_tensors, starmap(self._compute_piece, pieces))

    def _augment(self, x_0: Tensor, draws: CropDraws) -> Iterator[Tensor]:
        """Yield the images of each piece; small ones are made all at once, by fewer kernels."""
        if self.recipe.augmentation == "pad-crop":
            x = augment(x_0, draws, self.recipe)
            yield from (x[rows] for rows in self.pieces)
        else:
            for rows in self.pieces:
                yield augment(x_0[rows], draws.take_rows(rows), self.recipe)

    def _compute_piece(self, x: Tensor, y: Tensor) -> Tensors:
        """Return the loss of a piece and its gradients, in memory of their own."""
        for parameter in self.parameters:
            parameter.grad = None
        losses = F.cross_entropy(
            self._compute_logits(x), y, reduction="sum",
            label_smoothing=self.recipe.label_smoothing,
        )  # fmt: skip
        loss = losses / self.recipe.batch_size
        loss.backward()
        return loss.detach(), *(parameter.grad for parameter in self.parameters)

    def _compute_logits(self, x: Tensor) -> Tensor:
        """Return float32 [B, K]."""
        if x.device.type == "cuda":
            x = x.contiguous(memory_format=torch.channels_last)
        with autocast(self.recipe.precision, x.device):
            return self.net(x).float()

    @torch.no_grad()
    def _update(self, step: int, loss: Tensor) -> None:
        grads = [p.grad for p in self.parameters if p.grad is not None]
        self.world.sum_(grads, loss)
        good = torch.nn.utils.get_total_norm(grads).isfinite() & loss.isfinite()
        bad = (~good).float()
        rate = compute_learning_rate(self._rates, step, cosine=True)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.found_inf = bad  # pyright: ignore[reportAttributeAccessIssue]
        self._optimizer.step()
        self._sums += torch.stack([torch.where(good, loss, 0.0), good.float(), bad])

    def release(self) -> None:
        """Give back the device memory that a step holds until the next one."""
        for parameter in self.parameters:
            parameter.grad = None
        if isinstance(self._gradients, Recorded):
            self._gradients.forget()
            torch.cuda.empty_cache()

    def read(self) -> None:
        """Set `loss`, the mean since the last call, None if no step counted; add to `skipped`."""
        loss, taken, skipped = self._sums.tolist()
        self._sums.zero_()
        self.loss = loss / taken if taken else None
        self.skipped += int(skipped)

    def take_snapshot(self, step: int) -> Snapshot:
        """Return the state after a step, for `restore`; its tensors are not copied."""
        tensors = {
            f"momentum.{name}": self._find_momentum(p) for name, p in self.net.named_parameters()
        }
        return Snapshot(
            step=step,
            model=dict(self.net.state_dict()),
            ema={},
            optimizer=tensors,
            state={"sums": self._sums.tolist(), "loss": self.loss, "skipped": self.skipped},
        )

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Load weights, momentum and counts of a snapshot; its tensors are copied."""
        self.net.load_state_dict(dict(snapshot.model))
        for name, parameter in self.net.named_parameters():
            self._find_momentum(parameter).copy_(snapshot.optimizer[f"momentum.{name}"])
        state: Mapping[str, Any] = snapshot.state
        self._sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))
        self.loss, self.skipped = state["loss"], state["skipped"]

    @torch.no_grad()
    def share_statistics(self) -> None:
        """Give every process the running statistics of the first one: its checkpoints have them."""
        buffers = [buffer for buffer in self.net.buffers() if buffer.is_floating_point()]
        if not self.world.leads:
            for buffer in buffers:
                buffer.zero_()
        self.world.sum_(buffers, torch.zeros((), device=self.device))

    def _find_momentum(self, parameter: Tensor) -> Tensor:
        return self._optimizer.state[parameter]["momentum_buffer"]


def _keep_casts(device: torch.device) -> torch.autocast:
    """Return what to enter so that weights are cast once for every `autocast` within.

    It casts nothing itself: the outermost one drops the casts that it ends with.
    """
    return torch.autocast(device.type, enabled=False)


def _check_shares(recipe: CasRecipe, world: World) -> None:
    """Raise UsageError unless each process has enough images for the batch norm of the recipe."""
    share = min(recipe.norm_images, recipe.batch_size)
    if recipe.batch_size % world.size or recipe.batch_size < share * world.size:
        raise UsageError(
            f"--batch-size {recipe.batch_size}: {world.size} processes need {share} images each, "
            "those of one batch norm",
            next=f"--batch-size {recipe.norm_images * world.size}",
        )


def cut_for_norm(num: int, norm_images: int) -> list[slice]:
    """Cut num images into equal pieces of at most norm_images."""
    count = max(1, -(-num // norm_images))
    ends = [num * (i + 1) // count for i in range(count)]
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
