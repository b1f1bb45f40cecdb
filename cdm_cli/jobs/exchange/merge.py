"""`cdm merge`: what several hosts made with `--part I/N` becomes one store, as if never divided.

A part consists of whole blocks, as large as those of the whole, so blocks map one to one. Each
is compared with its digest as it is read, and gets a new digest, which includes its new number.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cdm_cli.__version__ import __version__
from cdm_cli.data.blocks import Block
from cdm_cli.data.schema import StoreSpec
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.runtime.identity import read_identity
from cdm_cli.jobs.runtime.same_store import find_store_difference, resume_or_create
from cdm_cli.jobs.sampling.blocks import write_missing
from cdm_cli.jobs.sampling.provenance import find_numerics, spell_command
from cdm_cli.options.files import MergeOptions
from cdm_cli.report import Report

NOTHING = "nothing was written"


@dataclass(frozen=True)
class Merged:
    """What was written. made: blocks of this run; the others were there before."""

    out: Path
    parts: int
    samples: int
    blocks: int
    made: int
    digest: str


@dataclass(frozen=True)
class Piece:
    """A part, and the place of its first sample in the whole."""

    store: Store
    first: int

    @property
    def part(self) -> Part:
        """Its samples."""
        return self.store.parts[""]

    @property
    def stop(self) -> int:
        """The first sample behind it."""
        return self.first + self.part.num


def run(options: MergeOptions, report: Report) -> Merged:
    """Join the parts into options.out.

    Raises MismatchError naming what does not fit, MissingError for an unfinished part,
    BadInputError for a damaged one, WouldOverwriteError, StoppedError, DiskError.
    """
    if options.out.resolve() in {path.resolve() for path in options.parts}:
        raise UsageError(f"-o {options.out}: is one of the parts", next="-o samples.h5")
    with ExitStack() as opened:
        pieces = order_pieces([opened.enter_context(open_store(path)) for path in options.parts])
        spec = make_spec(pieces, spell_command("merge", options))
        for piece in pieces:
            piece.store.require_finished()
        _tell(pieces, report)
        with resume_or_create(options.out, spec) as whole:
            made = copy_blocks(pieces, whole, report)
            blocks, digest = whole.parts[""].num_blocks, whole.digest
    num = pieces[-1].stop
    return Merged(options.out, len(pieces), num, blocks, made, digest)


def order_pieces(stores: Sequence[Store]) -> list[Piece]:
    """Return the parts in the order of their samples.

    Raises MismatchError where a store is no part, or differs from the others in more than
    where it begins; where samples are in two parts, or in none.
    """
    pieces = sorted(
        (Piece(store, _read_first_id(store)) for store in stores), key=lambda it: it.first
    )
    head = pieces[0].store
    for piece in pieces:
        _check_same(piece, head)
    end, before = 0, head
    for piece in pieces:
        if piece.first < end:
            raise _unfit_error(
                f"{before.path} and {piece.store.path} both hold sample {piece.first}",
                "name each part once",
            )
        if piece.first > end:
            raise _absent_error(end, piece.first)
        end, before = piece.stop, piece.store
    num = read_identity(head.provenance)["num"]
    if end != num:
        raise _absent_error(end, num)
    return pieces


def _read_first_id(store: Store) -> int:
    found = read_identity(store.provenance)
    first, num = found.get("first"), found.get("num")
    is_part = store.kind == "samples" and isinstance(num, int)
    if not is_part or not isinstance(first, int) or first < 0:
        raise _unfit_error(
            f"{store.path} is no part: it was not made by cdm sample or cdm upsample",
            "cdm inspect shows what it is",
        )
    return first


def _check_same(piece: Piece, head: Store) -> None:
    """Raise MismatchError unless the piece is of the same command as the first."""
    store, part = piece.store, piece.part
    found = find_store_difference(store, _copy_spec(head, piece.first, part.num))
    difference = found.side_by_side() if found else _compare_terms(store, head)
    if difference:
        raise _unfit_error(
            f"{store.path} and {head.path} do not belong together: {difference}",
            "name the parts of one command",
        )
    if piece.first % part.block_size:
        raise _unfit_error(
            f"{store.path} begins within a block, at sample {piece.first}",
            "cdm sample or cdm upsample with --part",
        )


def _copy_spec(head: Store, first: int, num: int, **more: object) -> StoreSpec:
    """Return the store of the same command that holds num samples from the first on.

    more: what else its provenance tells.
    """
    identity = {**read_identity(head.provenance), "first": first}
    return StoreSpec(
        kind="samples",
        parts={"": replace(head.contents.parts[""], num=num)},
        classes=head.classes,
        provenance={**head.provenance, "identity": identity, **more},
        block_size=head.contents.block_size,
    )


def _compare_terms(store: Store, head: Store) -> str:
    """Return how conventions or precision of two parts differ, "" where they do not."""
    there, here = store.provenance, head.provenance
    if there.get("conventions") != here.get("conventions"):
        return "they follow other conventions, which cdm inspect shows"
    was, wants = (find_numerics(it.provenance).get("precision") for it in (store, head))
    return f"precision is {was} there, {wants} here" if was != wants else ""


def _tell(pieces: Sequence[Piece], report: Report) -> None:
    """Say where parts were computed otherwise than the first, which changes their last bits."""
    first, *others = pieces
    want = find_numerics(first.store.provenance)
    for piece in others:
        has = find_numerics(piece.store.provenance)
        differs = [f"{key} {has.get(key)}" for key in want if has.get(key) != want[key]]
        if differs:
            report.say(
                f"{piece.store.path} was made with {', '.join(differs)}, unlike "
                f"{first.store.path}: the last bits of its samples may not be those of one run"
            )


def _absent_error(start: int, stop: int) -> MismatchError:
    return _unfit_error(f"samples {start}..{stop - 1} are in none of the parts", "name all parts")


def _unfit_error(what: str, then: str) -> MismatchError:
    return MismatchError(what, kept=NOTHING, next=then)


def make_spec(pieces: Sequence[Piece], command: str) -> StoreSpec:
    """Return the store of the undivided command, which remembers its parts."""
    merged = [_describe_piece(piece) for piece in pieces]
    return _copy_spec(
        pieces[0].store, 0, pieces[-1].stop, cdm=__version__, command=command, merged=merged
    )


def _describe_piece(piece: Piece) -> dict[str, Any]:
    store = piece.store
    return {
        "name": store.path.name,
        "digest": store.digest,
        "first": piece.first,
        "num": piece.part.num,
        "numerics": find_numerics(store.provenance),
    }


def copy_blocks(pieces: Sequence[Piece], whole: Store, report: Report) -> int:
    """Copy the blocks that are missing; return how many.

    Raises BadInputError for a block that does not have its digest, and what `write_missing` raises.
    """
    target, size = whole.parts[""], whole.contents.block_size
    sources = {
        piece.first // size + b: (piece.part, b)
        for piece in pieces
        for b in range(piece.part.num_blocks)
    }
    missing = len(target.list_missing())

    def read(b: int) -> Block:
        part, source = sources[b]
        return part.read_checked(source)

    write_missing(target, read, "merge", report)
    return missing
