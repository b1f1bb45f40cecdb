"""What a stage is: frozen models that fit into `stage.json` unchanged."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cdm_cli.names import (
    Loss,
    Sampler,
    TimeInput,
    Variance,
)
from cdm_cli.settings import Later, Settings
from cdm_cli.units import format_count


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
                    f"heads of {format_count(self.head_channels, 'channel')}"
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


AnyStageConfig = Annotated[StageConfig | ClassifierConfig, Field(discriminator="kind")]
