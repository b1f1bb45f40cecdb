"""How a stage is trained, and all that `stage.json` keeps of it: frozen models."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cdm_cli.config import AnyStageConfig
from cdm_cli.names import MOST_BATCH, MOST_STEPS, Augment, Precision, Sampler, Variance
from cdm_cli.settings import Later, Settings


class TrainingConfig(Settings):
    """Optimisation (Appendix B)."""

    steps: int = Field(default=100_000, ge=1, le=MOST_STEPS)
    """Steps in all."""
    batch_size: int = Field(default=256, ge=1, le=MOST_BATCH)
    """Images of a step, over all GPUs."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Images at a time within a step; none: what fits, on a CPU at most 256."""
    lr: float = Field(default=1e-4, gt=0)
    """Learning rate of Adam."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises."""
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    """Decay of the averaged weights."""
    flip: bool = True
    """Mirror half of the images."""
    crop_pad: int = Field(default=0, ge=0, le=64)
    """Pixels of padding for random crops."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto: bf16 on CUDA."""
    gradient_checkpointing: bool = False
    """Compute activations twice, to need less memory."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of weights, data order and noise."""
    log_every: int = Field(default=50, ge=1)
    """Steps from one row of metrics.jsonl to the next."""
    save_every: int = Field(default=1000, ge=1)
    """Steps from one checkpoint to the next."""
    grid_every: int = Field(default=5000, ge=0)
    """Steps from one sample grid to the next; 0: none."""
    sample_s: int | None = Field(default=None, ge=0)
    """s of the grids and of --select; none: a quarter of the way from s_min to s_max."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints that are kept."""
    virtual_ranks: Annotated[int, Field(ge=0, le=1024), Later()] = 0
    """Parts of a batch whose gradients are added up in one order on any number of processes
    (--exact); 0: in an order that depends on the processes.
    """
    keyed_by: Annotated[Literal["rank", "place"], Later(settable=False)] = "rank"
    """Noise and dropout of an image: by its place in the batch, or, in older trainings, by process.
    The default is what files without the field mean; new trainings have place.
    """

    @field_validator("virtual_ranks")
    @classmethod
    def _halves_to_one(cls, ranks: int) -> int:
        if ranks & (ranks - 1):
            raise ValueError("expected a power of two")
        return ranks

    @model_validator(mode="after")
    def _shares_evenly(self) -> Self:
        if self.virtual_ranks and self.batch_size % self.virtual_ranks:
            raise ValueError(
                f"a batch of {self.batch_size} has no {self.virtual_ranks} equal parts, "
                "its virtual_ranks"
            )
        return self


class Plan(Settings):
    """Stage and training together: what a preset names and `--set` changes."""

    preset: str
    source: str
    stage: AnyStageConfig
    training: TrainingConfig


class DataInfo(Settings):
    """Which prepared store a stage was trained on.

    without_images: ids of the classes that no image of train shows; not written where all have.
    """

    name: str
    digest: str
    classes: tuple[str, ...]
    num_train: int
    num_val: int
    without_images: Annotated[tuple[int, ...], Later(settable=False)] = ()


class Applied(Settings):
    """What a search found for a super-resolution stage, and `cdm upsample` takes by default.

    sampler, steps (0: all T) and variance as the search was asked for them, None for the stage's
    own. by: the directory of the search. found: its conclusion. weights: SHA-256 of those that it
    was found with, "" in what earlier versions applied.
    """

    s: int = Field(ge=0)
    augment: Augment
    sampler: Sampler | None = None
    steps: int | None = Field(default=None, ge=0)
    variance: Variance | None = None
    by: str = ""
    found: str = ""
    weights: Annotated[str, Later(settable=False)] = ""


class StageFile(Settings):
    """The contents of `stage.json`.

    applied: what searches found, in order. in_force: which of it is the default of `cdm upsample`,
    counted from 1; 0: none, but the stage's own.
    """

    schema_version: Literal[1] = 1
    cdm_version: str
    plan: Plan
    data: DataInfo | None
    applied: Annotated[tuple[Applied, ...], Later(settable=False)] = ()
    in_force: Annotated[int, Field(ge=0), Later(settable=False)] = 0

    @model_validator(mode="after")
    def _is_there(self) -> Self:
        if self.in_force > len(self.applied):
            raise ValueError(f"in_force = {self.in_force} of {len(self.applied)} applied")
        return self
