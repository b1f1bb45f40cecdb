"""How a store of samples was made and computed, read back from its provenance."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cdm_cli.data.store import Store
from cdm_cli.diffusion.between import Rule
from cdm_cli.diffusion.reverse import Fraction
from cdm_cli.errors import BadInputError, UsageError
from cdm_cli.jobs.runtime.identity import read_identity
from cdm_cli.jobs.sampling.store_images import find_maker
from cdm_cli.names import MOST_COUNTED, Augment, Precision, Sampler, Variance

Count = Annotated[int, Field(ge=0)]


class FromProvenance(BaseModel):
    """Base of models read from a provenance, which may have further fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class HowComputed(FromProvenance):
    """`numerics` of a store, or of the part of it that came from another host."""

    batch_size: int = Field(ge=1, le=2**16)
    precision: Precision
    compiled: bool
    device: str
    build: str = ""


class HowMade(FromProvenance):
    """`identity` of a store that `sample` or `upsample` made."""

    command: Literal["sample", "upsample"]
    stage: str
    seed: int = Field(ge=0, lt=2**63)
    sampler: Sampler
    steps: int = Field(ge=1)
    times: tuple[int, ...] | None
    alpha_bar: tuple[float, ...] | None
    stochasticity: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    variance: Variance
    variance_fraction: Fraction
    clip: bool
    restart_from: int | None
    num: int = Field(ge=1)
    first: Count
    keep_s: tuple[int, ...]
    between: Rule | None = None
    classes: tuple[Count, ...] = ()
    counts: tuple[Annotated[int, Field(ge=1, le=MOST_COUNTED)], ...] = ()
    lowres: str = ""
    split: str = ""
    s: Count = 0
    augment: Augment = "non-truncated"

    @property
    def counts_fit(self) -> bool:
        """Whether there is a count for each class, and not too many in all."""
        there = len(self.counts) in (0, len(self.classes))
        return there and sum(self.counts) <= MOST_COUNTED


class MergedPiece(FromProvenance):
    """An entry of `merged`: samples that one part held."""

    first: Count
    num: Count
    numerics: HowComputed


@dataclass(frozen=True)
class Origin:
    """A provenance that was read: how the store was made and computed."""

    how_made: HowMade
    numerics: HowComputed
    pieces: tuple[MergedPiece, ...]

    def find_numerics_at(self, row: int) -> HowComputed:
        """Return how the sample at a place of the store was computed."""
        for piece in self.pieces:
            if piece.first <= row < piece.first + piece.num:
                return piece.numerics
        return self.numerics


def read_origin(store: Store) -> Origin:
    """Read the provenance of a store of samples.

    Raises UsageError where no stage made it, BadInputError where something is not told.
    """
    if not find_maker(store):
        raise UsageError(
            f"--replay: {store.path} was not made by cdm sample or cdm upsample",
            next="leave --replay away",
        )
    try:
        return Origin(
            HowMade.model_validate(read_identity(store.provenance)),
            HowComputed.model_validate(store.provenance.get("numerics")),
            tuple(MergedPiece.model_validate(row) for row in store.provenance.get("merged", ())),
        )
    except (ValidationError, TypeError) as error:
        where = error.errors()[0]["loc"] if isinstance(error, ValidationError) else ("merged",)
        raise BadInputError(
            f"{store.path}: its provenance does not tell {'.'.join(map(str, where))}, "
            "without which its samples cannot be made again",
            kept="its digests are good",
            next="leave --replay away",
        ) from None
