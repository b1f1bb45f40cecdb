"""Mirrors cdm_cli/jobs/runtime/agreement.py.

Processes that would do other things all end, and say so.
"""

import ast
import dataclasses
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

import cdm_cli
from cdm_cli.errors import BadInputError, CdmError, MismatchError
from cdm_cli.jobs.runtime.agreement import Word, agree_on, describe_task
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.options.sampling import SampleOptions
from tests.asking import as_typed
from tests.jobs.runtime.two_hosts import SAMPLE, TRAIN, UPSAMPLE, on_two_hosts, workspace
from tests.tiny import arrays_of, write_store

JOBS = Path(cdm_cli.__file__).parent / "jobs"
FOUR, SIX = (*TRAIN, "--steps", "4"), (*TRAIN, "--steps", "6")


@dataclass(frozen=True)
class Beside(World):
    """A world in which the others have said their words already."""

    others: list[Word] = field(default_factory=list)

    def gather(self, value):
        return [value, *self.others]


def beside(*others):
    return Beside(size=1 + len(others), others=list(others))


@pytest.fixture
def hosts(tmp_path):
    return workspace(tmp_path / "a"), workspace(tmp_path / "b")


def both_end(ends, code, says):
    for end in ends:
        assert end.code == code, end.said
        assert says in end.said.splitlines()[-1]


def test_alone_nothing_is_asked():
    assert agree_on(World(), lambda: 3, lambda number: {"number": object()}) == 3
    assert Session(torch.device("cpu")).lead(lambda: 4) == 4


def test_what_is_the_same_everywhere_is_returned():
    world = beside(Word("host1", {"s": 5, "times": [1, 2]}, None))
    assert agree_on(world, lambda: 5, lambda s: {"s": s, "times": (1, 2)}) == 5


def test_the_first_difference_is_named_with_both_hosts():
    world = beside(Word("host1", {"s": 5}, None), Word("host2", {"s": 7}, None))
    with pytest.raises(MismatchError, match=r"s is 5 in rank 0 on \S+, 7 in rank 2 on host2 —"):
        agree_on(world, lambda: 5, lambda s: {"s": s})


def test_who_fails_says_it_himself_and_the_others_say_where():
    def broken():
        raise BadInputError("a.h5 is damaged", kept="all", next="cdm verify a.h5")

    with pytest.raises(BadInputError, match=r"^a\.h5 is damaged"):
        agree_on(beside(Word("host1", {}, None)), broken)
    error = BadInputError("b.h5 is damaged", kept="all", next="cdm verify b.h5")
    with pytest.raises(BadInputError) as told:
        agree_on(beside(Word("host1", {}, error)), lambda: 5)
    assert str(told.value) == (
        "rank 1 on host1: b.h5 is damaged — all — Next: cdm verify b.h5"
    )  # fmt: skip


def test_a_bug_in_one_process_ends_the_others_too():
    def bug():
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        agree_on(beside(Word("host1", {}, None)), bug)
    with pytest.raises(CdmError, match=r"host1: ValueError\('odd'\)"):
        agree_on(beside(Word("host1", {}, CdmError("ValueError('odd')"))), lambda: 5)


def test_what_a_process_was_started_to_do_holds_every_option():
    asked = describe_task(describe_task, as_typed(SampleOptions, num=9))
    assert asked["command"] == "agreement"
    assert set(asked["option"]) == {field.name for field in dataclasses.fields(SampleOptions)}
    assert {"version of cdm", "version of torch"} < set(asked)


def calls(path):
    found = (node.func for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call))  # fmt: skip
    return {name.attr if isinstance(name, ast.Attribute) else ast.unparse(name) for name in found}


@pytest.mark.parametrize(
    "path", [path for path in sorted(JOBS.rglob("*.py")) if "start_job" in calls(path)],
    ids=lambda path: path.stem,
)  # fmt: skip
def test_every_job_of_several_processes_agrees_on_what_it_decides(path):
    assert "decide" in calls(path)


def test_a_resume_where_a_host_lacks_the_newest_checkpoint(hosts):
    """runs/ is not shared: the first host alone keeps checkpoints. Copied, all goes on as one."""
    first, second = hosts
    assert [end.code for end in on_two_hosts(first, second, FOUR)] == [0, 0]
    ends = on_two_hosts(first, second, SIX)
    both_end(ends, 78, "step resumed from is 4 in rank 0 on ")
    both_end(ends, 78, "Next: copy runs/new from the host with the newest checkpoint")
    assert not (first / "runs/new/checkpoints/step-00000006").exists()
    shutil.copytree(first / "runs/new", second / "runs/new", dirs_exist_ok=True)
    assert [end.code for end in on_two_hosts(first, second, SIX)] == [0, 0]
    assert (first / "runs/new/checkpoints/step-00000006").exists()


def test_another_seed_on_one_host(hosts):
    ends = on_two_hosts(*hosts, (*FOUR, "--seed", "1"), (*FOUR, "--seed", "2"))
    both_end(ends, 78, "option.seed is 1 in rank 0 on ")
    assert not (hosts[0] / "runs/new").exists()


def test_other_data_of_the_same_name_on_one_host(hosts):
    (hosts[1] / "data.h5").unlink()
    arrays = {"train": arrays_of(36, [4, 8], seed=3), "val": arrays_of(24, [4, 8], seed=4)}
    write_store(hosts[1] / "data.h5", "prepared", arrays, classes=("disk", "ring", "square"))
    both_end(on_two_hosts(*hosts, FOUR), 78, "data is ")


def test_another_version_on_one_host(hosts):
    changed = {"cdm_cli.jobs.runtime.agreement.__version__": "0.0.9"}
    ends = on_two_hosts(*hosts, SAMPLE, changed=changed)
    both_end(ends, 78, "version of cdm is ")


def test_hosts_without_a_shared_directory_are_told_of_parts(hosts):
    ends = on_two_hosts(*hosts, SAMPLE, changed={"cdm_cli.jobs.runtime.agreement.LOOKS": 3})
    both_end(ends, 78, "their hosts share no file system")
    both_end(ends, 78, "--part I/N, then cdm merge")
    assert not list(hosts[0].glob("*new.h5*"))


def test_other_weights_and_a_missing_input_on_one_host(hosts):
    first, second = hosts
    shutil.copy(first / "runs/base/ema.safetensors", second / "runs/base/best.safetensors")
    both_end(on_two_hosts(*hosts, (*SAMPLE, "--weights", "best")), 78, "weights is ")
    (second / "lowres.h5").unlink()
    ends = on_two_hosts(*hosts, UPSAMPLE)
    both_end(ends, 66, "lowres.h5 does not exist")
    assert "rank 1 on " in ends[0].said


def test_gpus_beside_torchrun_are_said_to_be_left_aside(hosts):
    ends = on_two_hosts(hosts[0], hosts[0], (*SAMPLE, "--gpus", "3"))
    assert [end.code for end in ends] == [0, 0], ends
    assert "--gpus 3 is left aside: torchrun or srun started this job, of 2 in all" in ends[0].said
