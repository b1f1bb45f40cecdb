"""What `cdm eval elbo` found: a row for each stage, and one for the cascade (Eq. 1, Eq. 3)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cdm_cli.cascade.elbo import Bound, estimate_mean_and_error, join_bounds
from cdm_cli.jobs.elbo.plan import StageShare
from cdm_cli.units import format_count

MEANS = (
    "bits_per_dim: a bound from above, for each colour value of an image; the lower the better",
    "prior, divergences and decoder add up to it: what is left of an image at T, all steps back, "
    "the last one",
    "error: one standard error over images",
)
ABOVE = "above: the times of a stage above this alone count, the next stage has the rest"
WHOLE = "settings and digests: -v; everything, for machines: --json"


@dataclass(frozen=True)
class ElboRow:
    """One row, in bits per dimension of its resolution; error belongs to bits_per_dim.

    The row of a stage within a cascade sums over t > above only. The row named "cascade" is
    Eq. 3, the weighed sum of those before it.
    """

    stage: str
    resolution: int
    s: int | None
    above: int
    prior: float | None
    divergences: float | None
    decoder: float | None
    bits_per_dim: float
    error: float


@dataclass(frozen=True)
class ElboResult:
    """Upper bounds of -log2 p(x_0), and what they were computed from and with."""

    rows: tuple[ElboRow, ...]
    data: str
    data_digest: str
    split: str
    num: int
    steps: tuple[int, ...]
    terms: tuple[int, ...]
    variance: tuple[str, ...]
    clip: bool
    stage_digests: tuple[str, ...]
    batch_size: tuple[int, ...]
    precision: str
    seed: int
    device: str

    def show_in_short(self) -> list[str | list[dict[str, object]]]:
        """Return the bounds, then what they mean and of what they are."""
        above = [ABOVE] if any(row.above for row in self.rows) else []
        where = f"of {format_count(self.num, 'image')} of {self.split} of {self.data}"
        return [[asdict(row) for row in self.rows], *MEANS, *above, where, WHOLE]


def make_rows(shares: Sequence[StageShare], bounds: Sequence[Bound]) -> list[ElboRow]:
    """Return a row for each stage, and for several the sum over them, weighed as Eq. 3 says."""
    rows = [_make_stage_row(share, found) for share, found in zip(shares, bounds, strict=True)]
    if len(rows) == 1:
        return rows
    mean, error = estimate_mean_and_error(join_bounds(bounds, [share.dims for share in shares]))
    whole = ElboRow(
        stage="cascade", resolution=shares[-1].resolution, s=None, above=0,
        prior=None, divergences=None, decoder=None, bits_per_dim=mean, error=error,
    )  # fmt: skip
    return [*rows, whole]


def _make_stage_row(share: StageShare, found: Bound) -> ElboRow:
    mean, error = estimate_mean_and_error(found.total)
    return ElboRow(
        stage=share.header.directory.name,
        resolution=share.resolution,
        s=share.s,
        above=share.above,
        prior=float(found.prior.mean()),
        divergences=float(found.divergences.mean()),
        decoder=None if share.above else float(found.decoder.mean()),
        bits_per_dim=mean,
        error=error,
    )
