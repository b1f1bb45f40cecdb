"""Labels in files beside the images, as WebDataset has them: 000012.png with 000012.cls or .json.

A .cls holds an id or a name, a .json an object with one of KEYS. A side file belongs to the images
of its own name without suffix, or without all that follows the first dot (000012.left.png).
"""

import json
from collections.abc import Iterable
from typing import Any

from cdm_cli.data.images import BadImageError
from cdm_cli.data.listing import BESIDE, list_keys
from cdm_cli.data.sources import Source
from cdm_cli.data.tables import CLASS, LABEL, LabelRow, LabelTable, collect_values, read_ids
from cdm_cli.errors import BadInputError

KEYS = ("cls", *LABEL, *(word for word in CLASS if word != "name"))
FORM = "expected a class id or name in each .cls"


def find_labels_beside(source: Source) -> tuple[LabelTable, str] | None:
    """Return the labels that files beside the images tell, and their suffix; None without any.

    .cls files are asked first, and .json files where none of them tells a label. A .json that is
    no object, or has none of KEYS, tells none. Raises BadInputError for a file that cannot be read,
    and naming the one whose label is no class id or name.
    """
    for suffix in BESIDE:
        rows = list(_read_rows(source, suffix))
        if rows:
            texts = [row for row in rows if isinstance(row.value, str)]
            read = read_ids(rows) if len(texts) == len(rows) else rows
            return LabelTable(collect_values(read, FORM)), suffix
    return None


def _read_rows(source: Source, suffix: str) -> Iterable[LabelRow]:
    for image in source.names:
        side = next(
            (key + suffix for key in list_keys(image) if key + suffix in source.beside), None
        )
        if side is not None:
            where = f"{source.name}: {side}"
            value = _read_value(source, side, where)
            if value is not None:
                yield LabelRow(where, image, value)


def _read_value(source: Source, side: str, where: str) -> Any:
    try:
        data = source.read_beside(side)
    except BadImageError as error:
        raise BadInputError(f"{where} cannot be used: {error}") from error
    if side.endswith(BESIDE[0]):
        return data.decode("utf-8", "surrogateescape").strip()
    try:
        told: Any = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    return next((told[key] for key in KEYS if key in told), None)
