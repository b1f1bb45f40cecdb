"""Files that a stranger might send, each made when it is needed: none is kept in the repository.

Every maker writes at a path and may use what lies in `outside`, beside it: `secret.h5` and
`secret.txt` hold SECRET, `pipe` is a pipe that nobody writes to.
"""

import json
import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import torch

from cdm_cli.cascade.head import HEADER_LIMIT
from cdm_cli.data import schema
from cdm_cli.data.store import create
from tests.data.stores import CLASSES, fill, samples_spec
from tests.tiny import base_config, net_of, pack, write_stage

SECRET = b"THE-SECRET-OF-ANOTHER-FILE"
CONFIG = base_config(channel_mult=(1,))


def outside_of(home: Path) -> Path:
    """Make the directory that no file inside `home` may lead to."""
    outside = home / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(SECRET * 100)
    with h5py.File(outside / "secret.h5", "w") as file:
        file["x"] = np.frombuffer(SECRET * 100, np.uint8)
    os.mkfifo(outside / "pipe")
    return outside


def good_store(path: Path) -> None:
    """Write a store as cdm does."""
    with create(path, samples_spec()) as store:
        fill(store)


def good_stage(path: Path) -> Path:
    """Write a stage directory as cdm does."""
    return write_stage(path, CONFIG, classes=("a", "b", "c"))


# HDF5 -----------------------------------------------------------------------------------------


def h5(write, **how):
    """Return the maker of an HDF5 file with an images member that `write` makes."""

    def make(path, outside):
        with h5py.File(path, "w", **how) as file:
            file.attrs["schema"] = schema.SCHEMA
            write(file, outside)

    return make


def altered(alter):
    """Return the maker of a good store in which libhdf5 then altered something."""

    def make(path, outside):
        good_store(path)
        with h5py.File(path, "r+") as file:
            alter(file, outside)

    return make


def _external_link(file, outside):
    file["images"] = h5py.ExternalLink(outside / "secret.h5", "/x")


def _external_link_to_text(file, outside):
    file["images"] = h5py.ExternalLink(outside / "secret.txt", "/")


def _external_link_to_pipe(file, outside):
    file["images"] = h5py.ExternalLink(outside / "pipe", "/")


def _soft_link(file, outside):
    file["images"] = h5py.SoftLink("/images")


def _cycle(file, outside):
    file.create_group("images")["images"] = file["/"]


def _external_storage(where):
    def write(file, outside):
        name = where if where.startswith("/") else str(outside / where)
        file.create_dataset("images", (1000,), "u1", external=[(name, 0, 1000)])

    return write


def _virtual(where):
    def write(file, outside):
        layout = h5py.VirtualLayout((1000,), "u1")
        layout[:] = h5py.VirtualSource(outside / where, "x", (1000,))
        file.create_virtual_dataset("images", layout, fillvalue=77)

    return write


def _member(*args, **how):
    def write(file, outside):
        file.create_dataset("images", *args, **how)

    return write


def _gzip_bomb(file, outside):
    chunk = (2**25,)
    file.create_dataset("images", chunk, "u1", chunks=chunk, compression="gzip", compression_opts=9)
    file["images"][...] = 0


def _references(file, outside):
    file["x"] = [1]
    file.create_dataset("images", (2,), h5py.ref_dtype)
    file["images"][0] = file["x"].ref


def _many_attributes(file, outside):
    for number in range(2000):
        file.attrs[f"a{number}"] = number


def _vlen_attribute(file, outside):
    file.attrs["schema"] = "text of variable length"


def _long_attribute(file, outside):
    file.attrs.create("provenance", np.zeros(2**18, np.uint8))


def _more(file, outside):
    file["more"] = [1, 2, 3]


def _other_dtype(file, outside):
    del file["labels"]
    file["labels"] = np.zeros(20, np.int32)


def _linked_member(file, outside):
    del file["images"]
    file["images"] = h5py.ExternalLink(outside / "secret.h5", "/x")


def _renamed_member(file, outside):
    file.move("labels", "label")


def _attribute_changed(file, outside):
    del file.attrs["kind"]
    file.attrs.create("kind", np.bytes_(b"prepared"))


HDF5 = {
    "external link": h5(_external_link),
    "external link to text": h5(_external_link_to_text),
    "external link to a pipe": h5(_external_link_to_pipe),
    "soft link to itself": h5(_soft_link),
    "cycle of hard links": h5(_cycle),
    "external storage": h5(_external_storage("secret.txt")),
    "external storage in a device": h5(_external_storage("/dev/zero")),
    "external storage in a pipe": h5(_external_storage("pipe")),
    "virtual dataset": h5(_virtual("secret.h5")),
    "virtual dataset of a pipe": h5(_virtual("pipe")),
    "gzip bomb": h5(_gzip_bomb),
    "chunks": h5(_member(data=np.zeros(1000, np.uint8), chunks=(10,))),
    "many chunks": h5(_member(data=np.zeros(5000, np.uint8), chunks=(1,))),
    "scaleoffset": h5(_member(data=np.arange(1000), chunks=(10,), scaleoffset=0)),
    "fletcher32": h5(_member(data=np.arange(1000), chunks=(10,), fletcher32=True)),
    "10 TB declared": h5(_member((10**13,), "u1")),
    "2^60 declared": h5(_member((2**20, 2**20, 2**20), "u1", chunks=(1, 1, 1024))),
    "no element": h5(_member((0, 8, 8, 3), "u1")),
    "null": h5(_member(data=h5py.Empty("u1"))),
    "variable length": h5(_member((3,), h5py.vlen_dtype(np.uint8))),
    "strings of variable length": h5(_member(data=["a", "bb"])),
    "compound": h5(_member(data=np.zeros(3, [("a", "i4"), ("b", "f8")]))),
    "references": h5(_references),
    "userblock": h5(_member(data=[1]), userblock_size=512),
    "other version": h5(_member(data=[1]), libver="latest"),
    "many attributes": h5(_many_attributes, libver="latest"),
    "attribute of variable length": altered(_vlen_attribute),
    "long attribute": h5(_long_attribute, libver="latest"),
    "a store and one member more": altered(_more),
    "a store with another dtype": altered(_other_dtype),
    "a store with a link for a member": altered(_linked_member),
    "a store with a member renamed": altered(_renamed_member),
    "a store with an attribute changed": altered(_attribute_changed),
}


# Stores whose seals are right, as somebody would make them who knows the format -----------------


def sealed(changes, size=None):
    """Return the maker of a store with other attributes, laid out as its own contents say."""

    def make(path, outside):
        attributes = schema.make_attributes(samples_spec()) | changes
        try:
            contents = schema.CONTENTS.validate_json(attributes["contents"])
            layout = schema.lay_out_store(attributes, contents)
        except ValueError:  # not to be laid out: then as the good one is
            layout = schema.lay_out_store(attributes, schema.make_contents(samples_spec()))
        with path.open("wb") as file:
            file.write(layout.header)
            file.truncate(min(layout.size, 2**43) if size is None else size)
            if layout.offsets.get("classes", 2**30) < 2**30:
                file.seek(layout.offsets["classes"])
                file.write(schema.pack_classes(CLASSES)[0])

    return make


def contents(**changes):
    """Return the attribute `contents` with other values."""
    values = json.loads(schema.make_contents(samples_spec()).encode())
    part = {key: changes.pop(key) for key in ("num", "resolutions", "z") if key in changes}
    values["parts"][""].update(part)
    return {"contents": json.dumps(values | changes).encode()}


def _many(text, limit):
    return ",".join([text] * (limit // (len(text) + 1)))


def long_json(text, limit=3_900_000):
    """Return provenance of many equal values, in as many attributes as that takes."""
    data = f'{{"a":[{_many(text, limit)}]}}'.encode()
    pieces = [data[at : at + 60_000] for at in range(0, len(data), 60_000)]
    names = ["provenance", *(f"provenance_{number}" for number in range(2, len(pieces) + 1))]
    return dict(zip(names, pieces, strict=True))


SEALED = {
    "not JSON": sealed({"provenance": b"{'a': 1}"}),
    "nested": sealed({"provenance": b"[" * 60_000}),
    "nested for ever": sealed({"provenance": b'{"a":' * 12_000}),
    "contents nested": sealed({"contents": b"[" * 60_000}),
    "contents of bytes": sealed({"contents": b"\xff\xfe" * 100}),
    "a number of a million digits": sealed({"provenance": b'{"a":' + b"1" * 59_000 + b"}"}),
    "2^60 samples": sealed(contents(num=2**60)),
    "2^36 samples": sealed(contents(num=2**36), size=2**20),
    "blocks of a terabyte": sealed(contents(num=2**20, resolutions={"4096": 4}, block_size=2**20)),
    "a million classes too many": sealed(contents(classes=2**20, class_bytes=4096)),
    "negative": sealed(contents(num=-5)),
    "not a number": sealed(contents(num=float("nan"))),
    "no blocks": sealed(contents(block_size=0)),
    "parts of other names": sealed(contents(parts={"../..": {"num": 1, "resolutions": {"8": 3}}})),
    "thousands of z": sealed(contents(z={str(s): [1, 1, 1] for s in range(3000)}), size=2**20),
}  # fmt: skip


# Weights ----------------------------------------------------------------------------------------


def tensors(header, body=b"", size=None):
    """Return the maker of a file of tensors with any header."""

    def make(path, outside):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        length = len(text) if size is None else size
        path.write_bytes(length.to_bytes(8, "little") + text + body)

    return make


class _Code:
    """A pickle that opens a file when it is read."""

    def __reduce__(self):
        return open, ("executed", "w")


def _pickled(path, outside):
    path.write_bytes(pickle.dumps(_Code()))


def _torch_saved(path, outside):
    torch.save(net_of(CONFIG).state_dict(), path)


def _torch_code(path, outside):
    torch.save({"a": _Code()}, path)


def _torchscript(path, outside):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/constants.pkl", b"\x80\x02).")
        archive.writestr("archive/code/__torch__.py", b"class Module: pass")


def _not_finite(path, outside):
    state = {name: tensor.clone() for name, tensor in net_of(CONFIG).state_dict().items()}
    next(iter(state.values())).view(-1)[0] = float("nan")
    path.write_bytes(pack(state))


def _other_model(path, outside):
    path.write_bytes(pack(net_of(base_config(channel_mult=(1, 2))).state_dict()))


def _overlapping(path, outside):
    """Every tensor of the model, all at the same place."""
    state = net_of(CONFIG).state_dict()
    entries = {
        name: {"dtype": "F32", "shape": list(t.shape), "data_offsets": [0, 4 * t.numel()]}
        for name, t in state.items()
    }
    tensors(entries, bytes(max(4 * t.numel() for t in state.values())))(path, outside)


def _half_floats(path, outside):
    state = net_of(CONFIG).state_dict()
    entries, end = {}, 0
    for name, tensor in state.items():
        span = [end, end + 2 * tensor.numel()]
        entries[name], end = (
            {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": span},
            span[1],
        )
    tensors(entries, bytes(end))(path, outside)  # fmt: skip


TENSORS = {
    "empty file": lambda path, outside: path.write_bytes(b""),
    "text": lambda path, outside: path.write_bytes(b"<!DOCTYPE html>" * 100),
    "a header of 2^63 bytes": tensors(b"{}", size=2**63),
    "a header of 1 GB": tensors(b"{}", size=10**9),
    "a header beyond the file": tensors(b"{}", size=1000),
    "lists in lists": tensors(b"[" * (HEADER_LIMIT - 8)),
    "a header full of lists": tensors(b'{"a":[' + _many("[]", HEADER_LIMIT - 40).encode() + b"]}"),
    "a header of many names": tensors({f"{n:x}": {} for n in range(HEADER_LIMIT // 20)}),
    "metadata of many names": tensors(
        {"__metadata__": {f"{n:x}": "" for n in range(HEADER_LIMIT // 20)}}
    ),
    "a name of megabytes": tensors({"x" * (HEADER_LIMIT - 100): {}}),
    "metadata that are no strings": tensors({"__metadata__": {"step": [1]}}),
    "2^60 elements": tensors({"a": {"dtype": "F32", "shape": [2**58], "data_offsets": [0, 2**60]}}),
    "overlapping tensors": _overlapping,
    "half floats": _half_floats,
    "not finite": _not_finite,
    "another model": _other_model,
    "a pickle": _pickled,
    "a file of torch.save": _torch_saved,
    "a file of torch.save with code": _torch_code,
    "TorchScript": _torchscript,
}


# stage.json -------------------------------------------------------------------------------------


def stage_with(where, raw):
    """Return the maker of a stage.json with other JSON at a place, "plan.stage.kind"."""

    def make(path, outside):
        values = json.loads(path.read_text())
        *groups, last = where.split(".")
        target = values
        for group in groups:
            target = target[group]
        target[last] = "@"
        path.write_text(json.dumps(values).replace('"@"', raw))

    return make


def written(data):
    """Return the maker of a file of these bytes."""
    return lambda path, outside: path.write_bytes(data)


MODEL, SIZE = "plan.stage.model", 2**22 - 4000
STAGES = {
    "empty": written(b""),
    "not JSON": written(b"kind: base"),
    "not text": written(b"\xff\xfe\0"),
    "nested": written(b"[" * SIZE),
    "too long": written(b'{"plan":[' + b"[]," * 2**24 + b"[]]}"),
    "another version": stage_with("schema_version", "2"),
    "a field more": stage_with("more", "1"),
    "a number of megabytes": stage_with("plan.stage.schedule.T", "1" * SIZE),
    "a kind of megabytes": stage_with("plan.stage.kind", f'"{"x" * SIZE}"'),
    "a field of megabytes": stage_with("x" * SIZE, "1"),
    "a list of lists": stage_with("plan.stage", f"[{_many('[]', SIZE)}]"),
    "millions of levels": stage_with(f"{MODEL}.channel_mult", f"[{_many('1', SIZE)}]"),
    "a million steps": stage_with(
        "plan.stage.schedule", f'{{"kind": "list", "T": 100000, "alpha_bar": [{_many("0", SIZE)}]}}'
    ),
    "2^60 channels": stage_with(f"{MODEL}.base_channels", str(2**60)),
    "the largest network": stage_with(
        MODEL,
        '{"resolution": 1024, "base_channels": 2048, "channel_mult": [64, 64, 64],'
        ' "num_res_blocks": 32, "num_classes": 1000000}',
    ),
    "a resolution of nothing": stage_with(f"{MODEL}.resolution", "0"),
    "not a number": stage_with("plan.stage.vlb_weight", "NaN"),
    "weights of others": stage_with(f"{MODEL}.base_channels", "16"),
}


# Things that are no files -------------------------------------------------------------------------


def _symlink_loop(path, outside):
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


THINGS = {
    "a pipe": lambda path, outside: os.mkfifo(path),
    "a directory": lambda path, outside: path.mkdir(),
    "a loop of links": _symlink_loop,
    "a link to a pipe": lambda path, outside: path.symlink_to(outside / "pipe"),
    "a link to a device": lambda path, outside: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path, outside: path.symlink_to(outside / "nothing"),
    "a link to a secret": lambda path, outside: path.symlink_to(outside / "secret.txt"),
}
