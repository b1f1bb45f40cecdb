"""Mirrors cdm_cli/cascade/foreign/foreign.py: what strangers send, and what they could."""

import io
import os
import random
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from cdm_cli.cascade.foreign.foreign import read_file, read_tensors, remove_prefix
from cdm_cli.errors import BadInputError, MissingError, UnsafeInputError

SOURCE = Path("m.pt")
BOTH_FORMATS = pytest.mark.parametrize("as_zip", [True, False])


def pickled(values: object, as_zip: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer, _use_new_zipfile_serialization=as_zip)
    return buffer.getvalue()


class Evil:
    """Unpickled naively, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@BOTH_FORMATS
def test_tensors_of_torch_save_when_asked_for(as_zip):
    tensors = {"a": torch.randn(3, 2), "b": torch.ones(4, dtype=torch.float16)}
    data = pickled(tensors, as_zip)
    found = read_tensors(data, SOURCE, from_pickle=True)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    with pytest.raises(UnsafeInputError, match=r"is a pickle.*--from-pickle"):
        read_tensors(data, SOURCE, from_pickle=False)


def test_safetensors_need_no_permission():
    tensors = {"a": torch.randn(3, 2).to(torch.bfloat16)}
    found = read_tensors(save(tensors), SOURCE, from_pickle=False)
    assert torch.equal(found["a"], tensors["a"])


@BOTH_FORMATS
@pytest.mark.parametrize("wrap", [False, True])
def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path, as_zip, wrap):
    evil = Evil(tmp_path / "made")
    data = pickled({"a": torch.ones(1), "b": evil} if wrap else evil, as_zip)
    with pytest.raises(UnsafeInputError, match=r"asks for posix\.mkdir"):
        read_tensors(data, SOURCE, from_pickle=True)
    assert not (tmp_path / "made").exists()


@BOTH_FORMATS
def test_only_a_table_of_tensors_will_do(as_zip):
    for values in ([torch.ones(1)], {"a": 1}, {3: torch.ones(1)}, {"state": {"a": 1}}):
        with pytest.raises(BadInputError, match="expected a t"):
            read_tensors(pickled(values, as_zip), SOURCE, from_pickle=True)


@BOTH_FORMATS
@pytest.mark.parametrize("name", ["state_dict", "model", "ema"])
def test_a_table_within_the_file_is_found(as_zip, name):
    tensors = {"a": torch.randn(3, 2)}
    data = pickled({"epoch": 3, name: tensors}, as_zip)
    assert torch.equal(read_tensors(data, SOURCE, from_pickle=True)["a"], tensors["a"])


def test_of_several_tables_none_is_guessed():
    table = {"a": torch.ones(1)}
    with pytest.raises(BadInputError, match="several tables of tensors: model, ema"):
        read_tensors(pickled({"model": table, "ema": table}), SOURCE, from_pickle=True)


def test_what_wrappers_put_before_every_name_is_left_away():
    tensor = torch.ones(1)
    assert remove_prefix({"module.a.b": tensor, "module.c": tensor}) == (
        {"a.b": tensor, "c": tensor}, "module.",
    )  # fmt: skip
    assert remove_prefix({"module._orig_mod.a": tensor})[1] == "module._orig_mod."
    for names in (("module.a", "b"), ("time_embed.0.weight", "time_embed.2.weight")):
        table = dict.fromkeys(names, tensor)
        assert remove_prefix(table) == (table, "")


def test_a_tensor_larger_than_its_storage():
    with pytest.raises(UnsafeInputError, match="tensor a does not fill its place"):
        read_tensors(pickled({"a": torch.ones(1).expand(10**6)}), SOURCE, from_pickle=True)


def rezipped(data: bytes, compression: int, rename: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        if rename:
            new.writestr(rename, b"")
    return buffer.getvalue()


def test_compressed_members_and_programs_are_refused():
    data = pickled({"a": torch.zeros(10_000)})
    with pytest.raises(UnsafeInputError, match="compressed"):
        read_tensors(rezipped(data, zipfile.ZIP_DEFLATED), SOURCE, from_pickle=True)
    for member in ("archive/constants.pkl", "archive/code/__torch__.py"):
        with pytest.raises(UnsafeInputError, match="TorchScript"):
            read_tensors(rezipped(data, zipfile.ZIP_STORED, member), SOURCE, from_pickle=True)


@pytest.mark.parametrize("data", [b"", b"hello there", b"PK\x03\x04abc", b"\x80\x02abc", b"\x80"])
def test_what_is_no_checkpoint(data):
    with pytest.raises(BadInputError):
        read_tensors(data, SOURCE, from_pickle=True)


@BOTH_FORMATS
def test_damage_is_an_error_of_ours_or_harmless(as_zip):
    data = pickled({"a": torch.ones(30)}, as_zip)
    draw = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        damaged[draw.randrange(min(len(data), 600))] ^= 1 << draw.randrange(8)
        try:
            read_tensors(bytes(damaged), SOURCE, from_pickle=True)
        except BadInputError:
            refused += 1
    assert refused > 20


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(MissingError):
        read_file(tmp_path / "none.pt")
    with pytest.raises(UnsafeInputError, match="not a regular file"):
        read_file(tmp_path)
    (tmp_path / "m.pt").write_bytes(b"abc")
    (tmp_path / "link.pt").symlink_to("m.pt")
    assert read_file(tmp_path / "link.pt") == b"abc"
