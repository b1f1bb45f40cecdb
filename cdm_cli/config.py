"""What a stage is and how it is trained: frozen models that fit into `stage.json` unchanged."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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
    """A noise schedule (Appendix B). kind "list" takes alpha_bar_1..alpha_bar_T as given."""

    kind: Literal["cosine", "linear", "list"] = "cosine"
    T: int = Field(default=4000, ge=1, le=100_000)
    beta_1: float | None = Field(default=None, gt=0, lt=1)
    beta_T: float | None = Field(default=None, gt=0, lt=1)  # noqa: N815
    alpha_bar: tuple[float, ...] | None = None

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
    """The U-Net (Appendix B; Dhariwal & Nichol 2021 for the layout).

    num_heads is a count; head_channels, where given, is the width of each head instead.
    skip_rescale: residual sums are divided by sqrt(2), as in SR3. norm_groups: or the greatest
    divisor they share with the channels; in a group of one channel its mean is lost.
    """

    resolution: int = Field(ge=4, le=1024)
    channels: int = Field(default=3, ge=1, le=4)
    base_channels: int = Field(default=128, ge=8, le=2048)
    channel_mult: tuple[Annotated[int | float, Field(gt=0, le=64)], ...] = Field(
        default=(1, 2, 2), min_length=1, max_length=16
    )
    num_res_blocks: int = Field(default=2, ge=1, le=32)
    attention_resolutions: tuple[int, ...] = ()
    num_heads: int = Field(default=1, ge=1, le=64)
    head_channels: int | None = Field(default=None, ge=1, le=1024)
    norm_groups: int = Field(default=32, ge=1, le=1024)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    scale_shift: bool = True
    resblock_updown: bool = False
    qkv_order: Literal["legacy", "new"] = "legacy"
    skip_rescale: bool = False
    num_classes: int = Field(default=0, ge=0, le=1_000_000)

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
    """How a super-resolution stage sees z_0 (Sections 3.1 and 3.2).

    s is drawn per example, uniformly from s_min..s_max (None: T of z_schedule), and with
    probability s_zero it is 0 instead. Without `gaussian` there is no s input at all.
    """

    resolution: int = Field(ge=1, le=1024)
    z_schedule: ScheduleConfig = ScheduleConfig()
    gaussian: bool = True
    s_min: int = Field(default=0, ge=0)
    s_max: int | None = Field(default=None, ge=0)
    s_zero: float = Field(default=0.0, ge=0, le=1)
    blur: bool = False
    blur_sigma: tuple[float, float] = (0.4, 0.6)
    blur_probability: float = Field(default=0.5, ge=0, le=1)

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
    steps: int | None = Field(default=None, ge=1)
    variance: Variance | None = None
    respacing: Annotated[str | None, Later(settable=False)] = None

    @model_validator(mode="after")
    def _has_a_choice(self) -> Self:
        if self.variance and self.sampler != "ancestral":
            raise ValueError("variance needs sampler = ancestral")
        return self


class StageConfig(Settings):
    """One diffusion model of a cascade: network, schedule and parameterisation.

    variance_fraction: log Sigma = f log beta + (1 - f) log beta_tilde with f = (v + 1) / 2
    ("centred", as guided-diffusion) or f = v ("plain", as the paper writes it, Section 2.1).
    rescale_time: the network is fed t * 1000 / T instead of t. time_offset is added to t before
    that: -1 for imported networks, which were trained with times counted from 0.
    """

    kind: Literal["base", "sr"]
    model: ModelConfig
    schedule: ScheduleConfig = ScheduleConfig()
    variance: Variance = "learned"
    variance_fraction: Literal["centred", "plain"] = "centred"
    loss: Loss = "hybrid"
    vlb_weight: float = Field(default=0.001, gt=0)
    time_input: TimeInput = "t"
    rescale_time: bool = False
    time_offset: int = Field(default=0, ge=-1, le=0)
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
    resolution: int = Field(default=32, ge=4, le=1024)
    channels: int = Field(default=3, ge=1, le=4)
    base_channels: int = Field(default=64, ge=8, le=1024)
    channel_mult: tuple[int, ...] = Field(default=(1, 2, 4), min_length=1, max_length=16)
    num_res_blocks: int = Field(default=2, ge=1, le=16)
    num_classes: int = Field(default=0, ge=0, le=1_000_000)


class TrainingConfig(Settings):
    """Optimisation (Appendix B). batch_size is global; None leaves a choice to the machine.

    sample_s: at which s a super-resolution stage draws its grids and the samples of --select;
    None: a quarter of the way from s_min to s_max.
    """

    steps: int = Field(default=100_000, ge=1, le=MOST_STEPS)
    batch_size: int = Field(default=256, ge=1, le=MOST_BATCH)
    micro_batch: int | None = Field(default=None, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=0, ge=0)
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    flip: bool = True
    crop_pad: int = Field(default=0, ge=0, le=64)
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    seed: int = Field(default=0, ge=0, lt=2**63)
    log_every: int = Field(default=50, ge=1)
    save_every: int = Field(default=1000, ge=1)
    grid_every: int = Field(default=5000, ge=0)
    sample_s: int | None = Field(default=None, ge=0)
    keep: int = Field(default=2, ge=1)


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
