"""The numbers of a study of docs/evidence in one table: what its commands wrote, and nothing else.

    python benchmarks/study_results.py DIR -o docs/evidence/results/NAME.csv

DIR is where the script ran. The rows are those of the tables of `cdm eval -o`, `cdm eval
checkpoints` and `cdm sweep-s`, and of few_evaluations.py there, rounded to five digits, without
the values of the jackknife. `table` is the file, and `of` the store, the checkpoint, the point of
a search, or the sampler and its steps.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path

COLUMNS: tuple[str, ...] = (
    "table", "of", "metric", "reference", "num", "value", "error", "less_bias",
    "compared_with", "difference", "difference_error", "verdict",
)  # fmt: skip
NAMES = {
    "num": "num", "value": "value", "error": "uncertainty", "less_bias": "corrected",
    "difference": "difference", "difference_error": "difference_uncertainty",
}  # fmt: skip
Row = dict[str, str]


def round_number(text: object) -> str:
    """Return a number with five digits, and an empty field as it is."""
    return "" if text in (None, "") else f"{float(str(text)):.5g}"


def read_csv(path: Path, table: str) -> Iterator[Row]:
    """Yield the rows of a table of `cdm eval`, none for a table of another kind."""
    with path.open() as file:
        for row in csv.DictReader(file):
            if "uncertainty" in row:
                numbers = {name: round_number(row.get(key)) for name, key in NAMES.items()}
                words = {key: row.get(key) or "" for key in COLUMNS if key not in numbers}
                of = row.get("weights") or row.get("store") or row.get("trained_on") or ""
                yield {**words, **numbers, "table": table, "of": of}


def read_sweep(path: Path, table: str) -> Iterator[Row]:
    """Yield the rows of a search, each with its verdict beside the best point."""
    sweep = json.loads(path.read_text())
    verdicts = {
        (one["point"]["augment"], one["point"]["s"], one["metric"], one["reference"]): one
        for one in sweep.get("comparisons", ())
    }
    for row in sweep["rows"]:
        augment, s = row["extra"]["augment"], row["extra"]["s"]
        found = verdicts.get((augment, s, row["metric"], row["reference"]), {})
        row |= {"num": row["convention"]["num"], "difference": found.get("difference")}
        row["difference_uncertainty"] = found.get("uncertainty")
        numbers = {name: round_number(row.get(key)) for name, key in NAMES.items()}
        words = {"metric": row["metric"], "reference": row["reference"]}
        verdict = found.get("verdict", "")
        against = "{augment} s = {s}".format(**found["against"]) if "against" in found else ""
        of = f"{augment} s = {s}"
        yield {**dict.fromkeys(COLUMNS, ""), **words, **numbers, "table": table, "of": of,
               "compared_with": against, "verdict": verdict}  # fmt: skip


def read_few(path: Path, table: str) -> Iterator[Row]:
    """Yield what `few_evaluations.py` found; its first row is that of many ancestral steps."""
    found = json.loads(path.read_text())
    many = f"ancestral-{found['reference']}"
    for row in found["rows"]:
        numbers = {"value": "fid", "error": "error", "difference": "gap",
                   "difference_error": "gap_error"}  # fmt: skip
        apart = row["name"] != "reference"
        yield {
            **dict.fromkeys(COLUMNS, ""), "table": table, "of": row["name"] if apart else many,
            "metric": "fid", "reference": "train", "num": str(found["num"]),
            **{name: round_number(row.get(key)) for name, key in numbers.items()},
            "compared_with": many if apart else "", "verdict": row.get("verdict") or "",
        }  # fmt: skip


def read_study(directory: Path) -> Iterator[Row]:
    """Yield the rows of all tables of a study, in the order of their names."""
    for path in sorted(directory.rglob("*.csv")):
        if path.name != "sweep.csv":
            within = path.relative_to(directory).with_suffix("")
            yield from read_csv(path, str(within.parent if path.name == "curve.csv" else within))
    for path in sorted(directory.rglob("sweep.json")):
        yield from read_sweep(path, str(path.parent.relative_to(directory)))
    for path in sorted(directory.rglob("few.json")):
        yield from read_few(path, str(path.parent.relative_to(directory)))


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    rows = [*read_study(given.directory)]  # before a table that is there is written over
    if not rows:
        parser.error(f"{given.directory} holds no numbers of cdm")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
