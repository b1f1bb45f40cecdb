"""Small stores for tests, and the arrays of their blocks."""

import numpy as np

from cdm_cli.data.store import PartSpec, StoreSpec, create

CLASSES = ("disk", "naïve ring", "tench, Tinca tinca", "鯉")


def samples_spec(num=20, block_size=8, **changes):
    values = {
        "kind": "samples",
        "parts": {"": PartSpec(num, {8: 3}, {3: (4, 4, 3), 12: (4, 4, 3)})},
        "classes": CLASSES,
        "provenance": {"command": "cdm sample base", "identity": {"seed": 0, "steps": 4}},
        "block_size": block_size,
    }
    return StoreSpec(**(values | changes))


def prepared_spec(num=20, num_val=6, resolutions=None, block_size=8, **changes):
    res = resolutions or {4: 3, 8: 3}
    parts = {"train": PartSpec(num, res), "val": PartSpec(num_val, res)}
    provenance = {"command": "cdm prepare x", "identity": {"source": "x"}}
    values = {"kind": "prepared", "parts": parts, "classes": CLASSES,
              "provenance": provenance, "block_size": block_size}  # fmt: skip
    return StoreSpec(**(values | changes))


def arrays_of(part, b, seed=0):
    """What a job would write into block b: a function of the rows alone."""
    rows = part.list_rows(b)
    arrays = {}
    for place, (name, member) in enumerate(part.members.items()):
        shape = (len(rows), *member.shape[1:])
        rng = np.random.default_rng([seed, place, b])
        if name == "ids":
            arrays[name] = np.arange(rows.start, rows.stop, dtype=np.int64)
        elif name == "labels":
            arrays[name] = np.arange(rows.start, rows.stop, dtype=np.int64) % len(CLASSES)
        elif name.startswith("z/"):
            arrays[name] = rng.standard_normal(shape).astype(np.float16)
        else:
            arrays[name] = rng.integers(0, 256, shape, dtype=np.uint8)
    return arrays


def fill(store, seed=0):
    for part in store.parts.values():
        for b in part.list_missing():
            part.write_block(b, arrays_of(part, b, seed))
    return store


def flip(path, place, mask=0x41):
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= mask
    path.write_bytes(data)


def filled(path, spec):
    """Write a whole store, and return its path."""
    with create(path, spec) as store:
        fill(store)
    return path


def forget_block(part, b):
    """Clear the done flag of block b, as if a kill had come before it."""
    part._write("done", b, b"\0")
