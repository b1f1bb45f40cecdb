"""Mirrors cdm_cli/cascade/weights.py: no damage goes unnoticed, nothing is taken on trust."""

import hashlib
import json
import os
import resource
import tracemalloc

import pytest
import safetensors.torch
import torch

from cdm_cli.cascade.head import HEADER_LIMIT, read_metadata
from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.weights import iterate_bytes, make_head, measure_head, read_weights
from cdm_cli.errors import BadInputError, CdmError, MismatchError, MissingError, UnsafeInputError
from tests.tiny import pack

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor(2.5),
    "c": torch.arange(3),
    "d": torch.arange(5, dtype=torch.uint8),
    "e": torch.ones(0, 4),
    "f": torch.ones(3, dtype=torch.float64) / 3,
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(pack(TENSORS, {"step": "7"}))
    return path


def parts_of(data):
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def rebuilt(header, body):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_what_was_packed_comes_back_bit_for_bit(path):
    loaded = read_weights(path, TENSORS)
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)
    assert loaded.metadata["step"] == "7" == read_metadata(path)["step"]


def test_other_programs_can_read_it(path):
    theirs = safetensors.torch.load_file(path)
    assert all(torch.equal(theirs[name], tensor) for name, tensor in TENSORS.items())


def test_channels_last_tensors_are_written_in_plain_order():
    x = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
    assert pack({"x": x.to(memory_format=torch.channels_last)}) == pack({"x": x})


def test_every_flipped_bit_is_noticed(path):
    data = path.read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(CdmError):
            read_weights(path, TENSORS)


def test_every_truncation_is_noticed(path):
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(BadInputError):
            read_weights(path, TENSORS)


def test_more_bytes_are_noticed(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BadInputError, match="behind its last tensor"):
        read_weights(path, TENSORS)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("c", {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}),
        ("a.weight", {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}),
        ("a.weight", {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 24]}),
        ("a.weight", {"dtype": "F32", "shape": [2, 3], "data_offsets": [1, 25]}),
        ("a.weight", {"dtype": "F32", "shape": [2, 3], "data_offsets": [-24, 0]}),
        ("a.weight", {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 10**15]}),
        ("a.weight", {"dtype": "F32", "shape": [2, 3], "data_offsets": [False, 24]}),
        ("a.weight", {"dtype": "F32", "shape": [2, 3]}),
        ("a.weight", None),
        ("b", {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}),
    ],
)
def test_headers_that_lie_are_refused(path, name, entry):
    header, body = parts_of(path.read_bytes())
    path.write_bytes(rebuilt({**header, name: entry}, body))
    with pytest.raises((BadInputError, MismatchError)):
        read_weights(path, TENSORS)


def test_a_digest_is_required_and_a_wrong_one_refused(path):
    header, body = parts_of(path.read_bytes())
    for metadata in ({}, {"sha256": "0" * 64}, {"sha256": 1}):
        path.write_bytes(rebuilt({**header, "__metadata__": metadata}, body))
        with pytest.raises(BadInputError):
            read_weights(path, TENSORS)


def test_the_manifest_has_the_last_word(path):
    with pytest.raises(BadInputError, match="manifest"):
        read_weights(path, TENSORS, sha256="0" * 64)


def test_a_file_is_in_memory_once(tmp_path):
    path, tensors = tmp_path / "w", {"x": torch.zeros(2**20)}
    path.write_bytes(data := pack(tensors))
    tracemalloc.start()
    try:
        read_weights(path, tensors, sha256=hashlib.sha256(data).hexdigest())
        assert tracemalloc.get_traced_memory()[1] < 1.5 * len(data)
    finally:
        tracemalloc.stop()


def test_names_of_another_model(path):
    with pytest.raises(MismatchError, match=r"lacks 1 \(z\) and has 1 too many \(b\)"):
        read_weights(path, {**{k: v for k, v in TENSORS.items() if k != "b"}, "z": torch.ones(1)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(tmp_path, value):
    path = tmp_path / "w"
    path.write_bytes(pack({"x": torch.tensor([1.0, value])}))
    with pytest.raises(BadInputError, match="tensor x"):
        read_weights(path, {"x": torch.zeros(2)})


def test_a_claimed_size_sets_no_memory_aside(tmp_path):
    """A 1 TB tensor in a file of 200 bytes, for a model that really would be so large."""
    path = tmp_path / "w"
    entry = {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}
    path.write_bytes(rebuilt({"__metadata__": {"sha256": ""}, "x": entry}, b""))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInputError, match="bytes long"):
        read_weights(path, {"x": torch.empty(2**38, device="meta")})
    path.write_bytes((HEADER_LIMIT + 1).to_bytes(8, "little") + b"{}")
    with pytest.raises(BadInputError, match="header claims"):
        read_weights(path, TENSORS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("header", [b"[]", b"{", b"[" * 100_000, b"\xff\xfe", b"null"])
def test_headers_that_are_no_table(tmp_path, header):
    path = tmp_path / "w"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(BadInputError):
        read_weights(path, TENSORS)


def test_a_pickle_is_refused_unread(tmp_path):
    path = tmp_path / "w"
    torch.save(TENSORS, path)
    with pytest.raises(UnsafeInputError, match="could run code"):
        read_weights(path, TENSORS)


def test_links_pipes_and_directories_are_not_opened(path):
    for name, make in {
        "link": lambda p: os.symlink(path, p),
        "pipe": os.mkfifo,
        "directory": os.mkdir,
    }.items():
        make(path.parent / name)
        with pytest.raises(UnsafeInputError, match="not a regular file"):
            read_weights(path.parent / name, TENSORS)
    with pytest.raises(MissingError):
        read_weights(path.parent / "none", TENSORS)


@pytest.mark.parametrize("piece", [1, 7, 16, 2**24])
def test_pieces_of_any_size_are_the_bytes_of_the_whole(piece, monkeypatch):
    whole = pack(TENSORS, {"step": "7"})
    monkeypatch.setattr("cdm_cli.cascade.weights.PIECE", piece)
    assert pack(TENSORS, {"step": "7"}) == whole
    assert max(map(len, iterate_bytes(TENSORS))) <= piece
    head = make_head(TENSORS, {"step": "7"})
    assert whole.startswith(head.data)
    assert measure_head(TENSORS, {"step": "7"}) == len(head.data)
    assert (head.size, head.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


def test_a_file_is_the_same_bytes_whoever_wrote_it(tmp_path):
    """Written while its head is computed, or packed in memory."""
    save_ema(tmp_path, TENSORS, 7)
    assert (tmp_path / "ema.safetensors").read_bytes() == pack(TENSORS, {"step": "7"})
