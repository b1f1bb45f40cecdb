"""What a stage is and how it is trained: frozen models that fit into `stage.json` unchanged."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cdm_cli.names import (
    MOST_BATCH,
    MOST_STEPS,
    Augment,
    Loss,
    Precision,
    Sampler,
    TimeInput,
    Variance,
)
from cdm_cli.settings import Later, Settings


class ScheduleConfig(Settings):
    """A noise schedule (Appendix B)."""

    kind: Literal["cosine", "linear", "list"] = "cosine"
    """Form of the noise schedule; list takes alpha_bar as given."""
    T: int = Field(default=4000, ge=1, le=100_000)
    """Number of times of the chain."""
    beta_1: float | None = Field(default=None, gt=0, lt=1)
    """First beta of a linear schedule."""
    beta_T: float | None = Field(default=None, gt=0, lt=1)  # noqa: N815
    """Last beta of a linear schedule."""
    alpha_bar: tuple[float, ...] | None = None
    """alpha_bar_1 to alpha_bar_T, for kind = list alone."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.kind == "list") != (self.alpha_bar is not None):
            raise ValueError("alpha_bar belongs to kind = list, and only there")
        if self.alpha_bar is not None and len(self.alpha_bar) != self.T:
            raise ValueError(f"alpha_bar has {len(self.alpha_bar)} entries, T is {self.T}")
        if self.kind != "linear" and (self.beta_1 is not None or self.beta_T is not None):
            raise ValueError("beta_1 and beta_T belong to kind = linear")
        return self


class ModelConfig(Settings):
    """The U-Net (Appendix B; Dhariwal & Nichol 2021 for the layout)."""

    resolution: int = Field(ge=4, le=1024)
    """Height and width of the images."""
    channels: int = Field(default=3, ge=1, le=4)
    """Channels of the images; taken from the data."""
    base_channels: int = Field(default=128, ge=8, le=2048)
    """Channels of the first level."""
    channel_mult: tuple[Annotated[int | float, Field(gt=0, le=64)], ...] = Field(
        default=(1, 2, 2), min_length=1, max_length=16
    )
    """Channels of each level, in multiples of base_channels."""
    num_res_blocks: int = Field(default=2, ge=1, le=32)
    """Residual blocks of each level."""
    attention_resolutions: tuple[int, ...] = ()
    """Resolutions at which positions attend to each other."""
    num_heads: int = Field(default=1, ge=1, le=64)
    """Heads of attention, unless head_channels is given."""
    head_channels: int | None = Field(default=None, ge=1, le=1024)
    """Channels of each head, instead of their number."""
    norm_groups: int = Field(default=32, ge=1, le=1024)
    """Groups of group norm, or the greatest divisor they share with the channels; in a group of one
    channel its mean is lost.
    """
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations that are dropped in training."""
    scale_shift: bool = True
    """Embeddings scale and shift the norm, instead of being added."""
    resblock_updown: bool = False
    """Residual blocks change the resolution, instead of convolutions."""
    qkv_order: Literal["legacy", "new"] = "legacy"
    """Order of q, k and v in the weights of attention."""
    skip_rescale: bool = False
    """Residual sums are divided by sqrt(2), as in SR3."""
    num_classes: int = Field(default=0, ge=0, le=1_000_000)
    """Classes; 0: unconditional; taken from the data."""

    @model_validator(mode="after")
    def _halves_evenly(self) -> Self:
        factor = 2 ** (len(self.channel_mult) - 1)
        if self.resolution % factor:
            raise ValueError(f"resolution {self.resolution} cannot be halved to {factor} parts")
        return self

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        last = len(self.channel_mult) - 1
        for level, width in enumerate(self.widths):
            attends = self.resolution >> level in self.attention_resolutions or level == last
            if width < 1 or (attends and width % (self.head_channels or self.num_heads)):
                heads = (
                    f"heads of {self.head_channels} channels"
                    if self.head_channels
                    else f"{self.num_heads} heads"
                )
                raise ValueError(f"{width} channels do not divide into {heads}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, from the full resolution to the lowest."""
        return tuple(int(mult * self.base_channels) for mult in self.channel_mult)


class ConditioningConfig(Settings):
    """How a super-resolution stage sees z_0 (Sections 3.1 and 3.2); s is drawn for each image."""

    resolution: int = Field(ge=1, le=1024)
    """Height and width of z_0."""
    z_schedule: ScheduleConfig = ScheduleConfig()
    gaussian: bool = True
    """z_0 is noised to a time s, which the network is told; without, it takes s = 0 alone."""
    s_min: int = Field(default=0, ge=0)
    """Least s that training draws."""
    s_max: int | None = Field(default=None, ge=0)
    """Largest s that training draws; none: T of z_schedule."""
    s_zero: float = Field(default=0.0, ge=0, le=1)
    """Probability of s = 0 instead of a drawn one."""
    blur: bool = False
    """z_0 is blurred in training (Section 3.1)."""
    blur_sigma: tuple[float, float] = (0.4, 0.6)
    """Least and largest width of the blur, in pixels."""
    blur_probability: float = Field(default=0.5, ge=0, le=1)
    """Share of the images that are blurred."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not self.s_min <= self.highest_s <= self.z_schedule.T:
            raise ValueError(f"s_min <= s_max <= {self.z_schedule.T} does not hold")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError("blur_sigma must be two increasing positive numbers")
        return self

    @property
    def highest_s(self) -> int:
        """The largest s that training draws."""
        return self.z_schedule.T if self.s_max is None else self.s_max


class SamplingDefaults(Settings):
    """What `sample` and `upsample` use unless told otherwise.

    respacing: of a stage that was imported from openai's packages, whose times are kept as they
    keep them; their own text, "250", "10,10,20" or "ddim25", "" for all times.
    """

    sampler: Sampler = "ancestral"
    """Sampler that a stage is sampled by, unless told otherwise."""
    steps: int | None = Field(default=None, ge=1)
    """Evaluations of the network for one image; none: all T."""
    variance: Variance | None = None
    """Variance of an ancestral step; none: as trained."""
    respacing: Annotated[str | None, Later(settable=False)] = None

    @model_validator(mode="after")
    def _has_a_choice(self) -> Self:
        if self.variance and self.sampler != "ancestral":
            raise ValueError("variance needs sampler = ancestral")
        return self


class StageConfig(Settings):
    """One diffusion model of a cascade: network, schedule and parameterisation.

    variance_fraction is "centred" in guided-diffusion, "plain" in the paper (Section 2.1).
    """

    kind: Literal["base", "sr"]
    """base, or sr for super-resolution; fixed by the preset."""
    model: ModelConfig
    schedule: ScheduleConfig = ScheduleConfig()
    variance: Variance = "learned"
    """Variance of the reverse process; learned, or fixed at beta_tilde (small) or beta (large).
    """
    variance_fraction: Literal["centred", "plain"] = "centred"
    """log Sigma = f log beta + (1 - f) log beta_tilde, with f = (v + 1) / 2 (centred) or f = v
    (plain).
    """
    loss: Loss = "hybrid"
    """What is minimised: simple, simple with a share of vlb (hybrid), or vlb."""
    vlb_weight: float = Field(default=0.001, gt=0)
    """Share of vlb in the hybrid loss."""
    time_input: TimeInput = "t"
    """What the network is told of the time."""
    rescale_time: bool = False
    """The network is fed t * 1000 / T instead of t."""
    time_offset: int = Field(default=0, ge=-1, le=0)
    """Added to t before that; -1 for networks trained with times from 0."""
    conditioning: ConditioningConfig | None = None
    sampling: SamplingDefaults = SamplingDefaults()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.kind == "sr") != (self.conditioning is not None):
            raise ValueError("conditioning belongs to kind = sr, and only there")
        if self.conditioning and self.model.resolution % self.conditioning.resolution:
            raise ValueError(
                f"resolution {self.model.resolution} is no multiple of "
                f"{self.conditioning.resolution}"
            )
        if self.variance != "learned" and self.loss != "simple":
            raise ValueError(f"loss = {self.loss} needs variance = learned")
        return self


class ClassifierConfig(Settings):
    """A small residual classifier: features and class probabilities for `cdm eval`."""

    kind: Literal["classifier"] = "classifier"
    """classifier; fixed by the preset."""
    resolution: int = Field(default=32, ge=4, le=1024)
    """Height and width of the images; taken from the data."""
    channels: int = Field(default=3, ge=1, le=4)
    """Channels of the images; taken from the data."""
    base_channels: int = Field(default=64, ge=8, le=1024)
    """Channels of the first level."""
    channel_mult: tuple[int, ...] = Field(default=(1, 2, 4), min_length=1, max_length=16)
    """Channels of each level, in multiples of base_channels."""
    num_res_blocks: int = Field(default=2, ge=1, le=16)
    """Residual blocks of each level."""
    num_classes: int = Field(default=0, ge=0, le=1_000_000)
    """Classes; taken from the data."""


class TrainingConfig(Settings):
    """Optimisation (Appendix B)."""

    steps: int = Field(default=100_000, ge=1, le=MOST_STEPS)
    """Steps in all."""
    batch_size: int = Field(default=256, ge=1, le=MOST_BATCH)
    """Images of a step, over all GPUs."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Images at a time within a step; none: what fits."""
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
    (--exact); 0: in the order of the processes.
    """
    keyed_by: Annotated[Literal["rank", "place"], Later(settable=False)] = "rank"
    """Noise and dropout of an image: by its place in the batch; in older trainings by process."""

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


AnyStageConfig = Annotated[StageConfig | ClassifierConfig, Field(discriminator="kind")]


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
    own. by: the directory of the search. found: its conclusion.
    """

    s: int = Field(ge=0)
    augment: Augment
    sampler: Sampler | None = None
    steps: int | None = Field(default=None, ge=0)
    variance: Variance | None = None
    by: str = ""
    found: str = ""


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
