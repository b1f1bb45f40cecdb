"""Mirrors cdm_cli/jobs/sampling/shared_batches.py: batches across stores, the bytes of each."""

import signal
import threading
from pathlib import Path

import pytest
import torch

from cdm_cli.data.store import Part
from cdm_cli.errors import DiskError
from cdm_cli.jobs.runtime.same_store import resume_or_create
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.fill import Engine, Meter
from cdm_cli.jobs.sampling.ready import make_stage_ready
from cdm_cli.jobs.sampling.shared_batches import Filling, cut_batches, fill_stores
from cdm_cli.jobs.sampling.work import make_spec
from cdm_cli.options.sampling import Compute, Sampling, UpsampleOptions
from tests.asking import as_typed
from tests.jobs.sweep.sweeping import NUM, write_workspace
from tests.tiny import Told, contents, in_new_folder, sr_config

SIZE = 16
CPU = Compute(device="cpu", batch_size=SIZE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace, and stores of s = 0, 5 and 7 made one by one."""
    with in_new_folder(tmp_path_factory) as home:
        write_workspace(home, sr_config(4, 8))
        for s in (0, 5, 7):
            upsample.run(asked(s, Path(f"alone{s}.h5")), Told())
    return home


def asked(s, out, **sampling):
    return as_typed(UpsampleOptions, s=s, out=out, compute=CPU, sampling=Sampling(**sampling))


class Stores:
    """Stores of several s, opened as a job opens them."""

    def __init__(self, home, tmp_path, monkeypatch):
        monkeypatch.chdir(home)
        self.folder, self._stores, self.finished = tmp_path, [], []
        self.lowres = upsample.open_store("lowres.h5")
        work = self._work(0)
        self.ready = make_stage_ready(work, tmp_path / "x.h5", Session(torch.device("cpu"), CPU))

    def _work(self, s, **sampling):
        return upsample.plan_work(asked(s, self.folder / f"{s}.h5", **sampling), self.lowres)

    def filling(self, s, **sampling):
        work = self._work(s, **sampling)
        spec = make_spec(work, self.ready.stage.digest, self.ready.numerics)
        store = resume_or_create(self.folder / f"{s}.h5", spec)
        self._stores.append(store)
        return Filling(work, store, lambda: self.finished.append(f"{s}.h5"))

    def fill(self, fillings, watch=lambda num: None):
        with Stop() as stop:
            meter = Meter(lambda num, note: watch(num), stop, 0, str)

            def engine_of(work):
                return Engine(self.ready.stage, work.chain, work.sampling.seed, SIZE)

            todo = cut_batches(fillings, SIZE, lambda work: work.chain.sampler)
            fill_stores(todo, engine_of, meter)

    def close(self):
        for store in (*self._stores, self.lowres):
            store.close()


@pytest.fixture
def stores(made, tmp_path, monkeypatch):
    there = Stores(made, tmp_path, monkeypatch)
    yield there
    there.close()


def test_stores_that_are_filled_as_one_have_the_bytes_of_each_alone(made, stores):
    fillings = [stores.filling(s) for s in (0, 5, 7)]
    rows = []
    stores.fill(iter(fillings), rows.append)
    assert stores.finished == ["0.h5", "5.h5", "7.h5"]
    stores.close()
    for s in (0, 5, 7):
        assert contents(stores.folder / f"{s}.h5") == contents(made / f"alone{s}.h5")
    sizes = [num for num in rows if num]
    evaluations = fillings[0].work.chain.evaluations
    assert sizes == [SIZE] * (evaluations * (3 * NUM // SIZE)) + [3 * NUM % SIZE] * evaluations


def test_what_is_not_alike_shares_no_batch(stores):
    fillings = [stores.filling(0), stores.filling(5), stores.filling(7, sampler="ddim")]
    found = list(cut_batches(fillings, SIZE, lambda work: work.chain.sampler))
    kinds = [{piece.block.filling.work.chain.sampler for piece in one.pieces} for one in found]
    assert all(len(kind) == 1 for kind in kinds)
    assert [len(one.inputs.ids) for one in found] == [*[SIZE] * 8, 4, *[SIZE] * 4, 2]
    first = found[4]  # the end of one store and the beginning of the next
    assert [piece.block.filling.work.fields["s"] for piece in first.pieces] == [0, 5]
    assert first.inputs.s.tolist() == [0] * 2 + [5] * 14


def test_a_full_disk_at_a_stop_is_told_and_what_was_written_is_there(made, stores, monkeypatch):
    """The block that was handed over before the stop is lost; the same command makes it again."""
    asked = threading.Event()
    write = Part.write_block

    def fail(part, block, arrays):
        asked.wait(5)
        raise DiskError("no space left")

    def stop(num):
        monkeypatch.setattr(Part, "write_block", fail)
        nonlocal left
        left -= num
        if left < 0:
            signal.raise_signal(signal.SIGTERM)
            asked.set()

    filling = stores.filling(5)
    left = 64 * filling.work.chain.evaluations  # the stop comes within the second block
    with pytest.raises(DiskError, match="no space left"):
        stores.fill(iter([filling]), stop)
    filling.store.close()
    monkeypatch.setattr(Part, "write_block", write)
    again = stores.filling(5)
    assert again.left == 2
    stores.fill(iter([again]))
    again.store.close()
    assert contents(stores.folder / "5.h5") == contents(made / "alone5.h5")


def test_a_store_continues_with_the_blocks_that_are_missing(made, stores):
    class KilledError(Exception):
        pass

    def killed(num):
        nonlocal left
        left -= num
        if left < 0:
            raise KilledError

    filling = stores.filling(5)
    left = 64 * filling.work.chain.evaluations + 1  # within the batch of the second block
    with pytest.raises(KilledError):
        stores.fill(iter([filling]), killed)
    left = 10**9
    filling.store.close()
    again = stores.filling(5)
    assert again.left == 1
    stores.fill(iter([again]), killed)
    again.store.close()
    assert contents(stores.folder / "5.h5") == contents(made / "alone5.h5")
