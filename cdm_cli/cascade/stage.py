"""One diffusion model of a cascade: network, schedule and z_schedule (Sections 2 and 3).

`Stage` is the only place that knows what number the network is fed for a time t, or for an
augmentation level s, and which loss it was trained with.

Shapes: x_0, x_t are [B, C, H, W] and z_0, z_s are [B, C, h, w] with h <= H, in [-1, 1] when
clean; t = 1..T of `schedule` and s = 0..T of `z_schedule` are int64 [B]; y is int64 [B].
"""

import copy
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from cdm_cli.cascade.draws import Draws
from cdm_cli.config import StageConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.data.pixels import from_uint8
from cdm_cli.diffusion import augment, losses
from cdm_cli.diffusion.process import gather, q_sample_at
from cdm_cli.diffusion.reverse import split_v
from cdm_cli.diffusion.samplers import EpsTheta
from cdm_cli.diffusion.schedules import Schedule, from_config
from cdm_cli.names import Precision
from cdm_cli.nets.unet import UNet

LOG_SNR_LIMIT = 20.0


def build_net(config: StageConfig) -> UNet:
    """Build the U-Net of a stage; 2 C output channels where the variance is learned."""
    channels = config.model.channels
    conditioning = config.conditioning
    return UNet(
        config.model,
        out_channels=2 * channels if config.variance == "learned" else channels,
        conditioned=conditioning is not None,
        embeds_s=conditioning is not None and conditioning.gaussian,
    )


def trains_continuously(config: StageConfig) -> bool:
    """Return whether training draws alpha_bar from a continuum (Section 4.4, Appendix B).

    A learned variance is tied to the steps of a schedule, so it is trained at those.
    """
    return config.time_input != "t" and config.loss == "simple"


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Return whether the network runs under bfloat16 autocast: by default on CUDA only."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return what to enter while the network runs: bfloat16 autocast where `uses_bf16`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(precision, device))


def _do_nothing() -> None:
    pass


def _lay_out(x_t: Tensor) -> Tensor:
    """Return an image as the weights lie: channels-last on CUDA."""
    if x_t.device.type == "cuda":
        return x_t.contiguous(memory_format=torch.channels_last)
    return x_t


class Stage:
    """p_theta(x_0) or p_theta(x_0 | z_s) of one resolution.

    name and digest identify the stage in messages and provenance: the directory it was loaded
    from, and a hash over configuration and weights ("" for a stage that is being trained). Noise is
    keyed by `name_noise` instead.
    """

    def __init__(
        self,
        config: StageConfig,
        classes: Sequence[str],
        net: UNet,
        *,
        name: str = "",
        digest: str = "",
        precision: Precision = "auto",
    ) -> None:
        self.config, self.classes, self.net = config, tuple(classes), net
        self.name, self.digest = name, digest
        self.precision: Precision = precision
        self._denoise: Callable[..., Tensor] = net.denoise
        self._release: Callable[[], None] = _do_nothing
        self.schedule = from_config(config.schedule)
        self.z_schedule = (
            from_config(config.conditioning.z_schedule) if config.conditioning else None
        )
        self._schedule, self._z_schedule = self.schedule, self.z_schedule  # on the device

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.net.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Move the weights, on CUDA in channels-last order; the stage itself is returned."""
        place = torch.device(device)
        self.net.to(place)
        self._schedule = self.schedule.to(place)
        self._z_schedule = self.z_schedule and self.z_schedule.to(place)
        if place.type == "cuda":
            self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return self

    @property
    def denoise(self) -> Callable[..., Tensor]:
        """The function (x_t, t, `Condition`) -> raw output [B, C or 2 C, H, W] of the network."""
        return self._denoise

    def with_denoise(
        self, denoise: Callable[..., Tensor], release: Callable[[], None] = _do_nothing
    ) -> Self:
        """Return a copy of this stage, sharing its weights, that calls `denoise` for the network.

        release: frees the device memory that `denoise` holds between batches.
        """
        other = copy.copy(self)
        other._denoise, other._release = denoise, release
        return other

    def with_digest(self, digest: str) -> Self:
        """Return a copy of this stage, sharing its network, with the digest of its weights."""
        other = copy.copy(self)
        other.digest = digest
        return other

    def release(self) -> None:
        """Give back the device memory that evaluations of the network hold between batches."""
        self._release()

    def compute_time_input(self, alpha_bar: Tensor, times: Tensor) -> Tensor:
        """Return what the network is fed at these noise levels, float32.

        alpha_bar: float64; times: the stage's own t, of the same shape. Levels near 0 or 1
        would have an infinite log SNR, which is limited to +-20.
        """
        match self.config.time_input:
            case "t":
                factor = 1000 / self.config.schedule.T if self.config.rescale_time else 1.0
                return ((times.double() + self.config.time_offset) * factor).float()
            case "sqrt_alpha_bar":
                return (1000 * alpha_bar.sqrt()).float()
            case "alpha_bar":
                return (1000 * alpha_bar).float()
            case "log_snr":
                return alpha_bar.logit().clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT).float()

    def compute_s_input(self, s: Tensor | None) -> Tensor | None:
        """Return what the network is fed for s, float32 [B], or None where it has no such input."""
        if s is None or self.z_schedule is None or self.net.embed_s is None:
            return None
        return (s.double() * (1000 / self.z_schedule.T if self.config.rescale_time else 1)).float()

    def eps_theta(
        self,
        schedule: Schedule,
        y: Tensor | None,
        z_s: Tensor | None = None,
        s: Tensor | None = None,
    ) -> EpsTheta:
        """Return (x_t, t) -> raw network output [B, C or 2 C, H, W] in float32.

        schedule: the stage's own, a respaced one, or (with continuous noise conditioning)
        any other; t = 1..T counts in this schedule.
        """
        table = self.compute_time_input(schedule.alpha_bar, schedule.times).to(self.device)
        level = self.compute_s_input(s)
        condition = None

        def call(x_t: Tensor, t: Tensor) -> Tensor:
            nonlocal condition
            with autocast(self.precision, x_t.device):
                if condition is None:
                    condition = self.net.prepare(z_s, level, y)
                return self._denoise(_lay_out(x_t), table[t], condition).float()

        return call

    def compute_losses(self, batch: TrainBatch, draws: Draws) -> Tensor:
        """Return the loss of each example, [B], given all that is random in it (Algorithm 1).

        x_0 and z_0 are flipped alike, z_0 blurred and noised, x_0 noised to t (to a level within
        its segment where `trains_continuously`); then `losses.simple`, `hybrid` or T times `vlb`.
        """
        x_0, z_s = self._augment(batch, draws)
        alpha_bar_t = (
            augment.continuous_alpha_bar(self._schedule, draws.t, draws.u)
            if trains_continuously(self.config)
            else gather(self._schedule.alpha_bar, draws.t)
        )
        x_t = q_sample_at(alpha_bar_t, x_0, draws.eps)
        time = self.compute_time_input(alpha_bar_t, draws.t)
        y = batch.y if self.config.model.num_classes else None
        with autocast(self.precision, x_t.device):
            output = self.net(
                _lay_out(x_t), time, z_s, self.compute_s_input(draws.s), y, draws.seeds
            ).float()
        return self._penalise(x_0, x_t, draws, output)

    def _augment(self, batch: TrainBatch, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """Flip both images alike, then blur and noise z_0 at LOW resolution (Section 3.1)."""
        x_0 = from_uint8(batch.x_0)
        if batch.z_0 is None or self._z_schedule is None:
            (x_0,) = augment.flip(draws.flip, x_0)
            return x_0, None
        x_0, z = augment.flip(draws.flip, x_0, from_uint8(batch.z_0))
        if draws.sigma is not None and draws.blurred is not None:
            z = augment.blur(z, draws.sigma, draws.blurred)
        if draws.s is not None and draws.eps_z is not None:
            z = augment.gaussian(self._z_schedule, z, draws.s, draws.eps_z)
        return x_0, z

    def _penalise(self, x_0: Tensor, x_t: Tensor, draws: Draws, output: Tensor) -> Tensor:
        config, t = self.config, draws.t
        variance, fraction = config.variance, config.variance_fraction
        match config.loss:
            case "simple":
                return losses.simple(draws.eps, split_v(output, x_0.shape[1])[0])
            case "hybrid":
                return losses.hybrid(
                    self._schedule, x_0, x_t, t, draws.eps, output,
                    variance=variance, fraction=fraction, vlb_weight=config.vlb_weight,
                )  # fmt: skip
            case "vlb":
                bits = losses.vlb(
                    self._schedule, x_0, x_t, t, output, variance=variance, fraction=fraction
                )
                return self.schedule.T * bits
