"""Mirrors cdm_cli/jobs/training/gradients.py, on a linear model whose gradients are known."""

import pytest
import torch

from cdm_cli.errors import UsageError
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.gradients import choose_few
from tests.jobs.training.line import Line, batch, trainer
from tests.jobs.training.test_step import state


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
@pytest.mark.parametrize("virtual_ranks", [0, 1, 2])
def test_parts_of_a_batch_add_up_to_it(micro_batch, virtual_ranks):
    whole = trainer()
    parts = trainer(micro_batch=micro_batch, virtual_ranks=virtual_ranks)
    for step in (1, 2, 3):
        whole.step(step, batch())
        parts.step(step, batch())
    for name, tensor in state(whole).items():
        torch.testing.assert_close(tensor, state(parts)[name], rtol=1e-5, atol=1e-7)


def parts_of(keyed_by="place", **changes):
    """Take one step; return what each part of the batch has seen."""
    line = Line()
    trainer(line, keyed_by=keyed_by, **changes).step(3, batch())
    return line


def test_every_part_has_the_noise_of_its_rows():
    (whole,) = parts_of().seen
    for changes in (
        {"micro_batch": 3},
        {"virtual_ranks": 2},
        {"virtual_ranks": 2, "micro_batch": 1},
    ):
        assert torch.equal(torch.cat(parts_of(**changes).seen), whole)


def test_dropout_of_each_part_is_its_own_in_older_trainings():
    parts = parts_of("rank", micro_batch=2).masks
    assert len(set(parts)) == 2
    assert parts[0] == parts_of("rank").masks[0]


def test_a_piece_has_one_size_in_any_number_of_processes():
    for size, pieces in ((1, 4), (2, 2), (4, 1)):
        gradients = trainer(virtual_ranks=4, world=World(size=size), batch_size=64).gradients
        assert (gradients.piece, gradients._pieces) == (16, pieces)


@pytest.mark.parametrize("ranks", [0, 2])
def test_memory_that_runs_out_halves_a_part_and_ends_equality(ranks, monkeypatch):
    line, real = Line(), Line.compute_losses

    def losses(self, part, draws):
        if len(part.y) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, part, draws)

    monkeypatch.setattr(Line, "compute_losses", losses)
    one = trainer(line, virtual_ranks=ranks)
    one.step(7, batch())
    said = one.note_halving(7)
    assert "the batch of 4 is now taken 1 image at a time; the result is the same" in said
    assert one.note_halving(7) is None
    assert said.endswith("no longer to the bit") == (ranks > 0)
    (*_, ended) = one.resumed or (None,)
    assert (str(ended) if ended else "") == ("micro_batch was 2, now 1" if ranks else "")
    assert ended is None or ended.step == 6
    assert one.collect_state().numerics.get("micro_batch") == (1 if ranks else None)
    other = trainer(Line(), virtual_ranks=ranks, world=World(rank=0, size=2))
    other.restore(
        line.net.state_dict(), one.ema.state_dict(), one.flatten_optimizer(), one.collect_state()
    )
    assert other.gradients.micro_batch == (1 if ranks else 2), "bits go on as they are by now"


@pytest.mark.parametrize(("asked", "taken"), [(2, 1), (3, 3), (1, 1), (None, 4)])
def test_a_run_that_goes_on_takes_what_is_asked_anew_else_what_fitted(asked, taken):
    one, other = trainer(micro_batch=2), trainer(micro_batch=asked)
    one.gradients.continue_with(1)  # as where two had not fitted
    tensors = one.objective.net.state_dict(), one.ema.state_dict(), one.flatten_optimizer()
    other.restore(*tensors, one.collect_state())
    assert other.gradients.micro_batch == taken


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(UsageError, match="cannot be shared by 3 processes") as refused:
        trainer(world=World(rank=0, size=3))
    assert refused.value.next == "--batch-size 6"


@pytest.mark.parametrize(("processes", "said"), [(3, 2), (6, 4), (16, 8)])
def test_virtual_ranks_that_processes_cannot_share_are_refused(processes, said):
    with pytest.raises(UsageError, match=f"8 virtual ranks .* {processes} processes") as refused:
        trainer(virtual_ranks=8, batch_size=48, world=World(rank=0, size=processes))
    assert refused.value.next.startswith(f"--gpus {said},")


@pytest.mark.parametrize(("num", "few"), [(1, 1), (40, 40), (48, 32), (2048, 32), (2049, 33)])
def test_few_images_are_divided_by_sixteen_as_all_of_them(num, few):
    assert choose_few(num) == few


def test_a_rehearsal_takes_few_rows_and_changes_nothing():
    plain, rehearsed = trainer(batch_size=64), trainer(line := Line(), batch_size=64)
    rehearsed.gradients.warm_up(1, batch(torch.linspace(-1, 1, 64)))
    assert [len(seen) for seen in line.seen] == [32]
    assert all(parameter.grad is None for parameter in rehearsed.parameters)
    for some in (plain, rehearsed):
        some.step(1, batch(torch.linspace(-1, 1, 64)))
    ours, theirs = state(plain), state(rehearsed)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_rehearsal_without_memory_says_nothing(monkeypatch):
    def losses(self, part, draws):
        raise torch.OutOfMemoryError("out of memory")

    whole = trainer()
    with monkeypatch.context() as patch:
        patch.setattr(Line, "compute_losses", losses)
        whole.gradients.warm_up(1, batch())
    whole.step(1, batch())
    assert whole.gradients.halved_from is None
