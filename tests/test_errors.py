"""Mirrors cdm_cli/errors.py: what an error advises can be pasted, whatever files are called."""

import ast
import errno
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import cdm_cli
from cdm_cli import errors
from cdm_cli.data import durable
from cdm_cli.errors import DiskError, MissingError, is_out_of_memory, quote
from cdm_cli.translation import no_input

PACKAGE = Path(cdm_cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NEXT = "next"
# What an advice may hold as it is: numbers, flags, words of ours, and addresses.
PLAIN = {
    "advise_another(path)", "advise_training(part)",  # which quote
    "advise_stage('base stage', header.directory)", "expected",  # a kind of stage
    "advised", "','.join(map(str, near))",  # numbers
    "', '.join(CLASS)", "', '.join(FILE)", "', '.join(LABEL)", "quarter",
    "MOST_SAMPLES // num_classes", "again", "axis", "blocks", "ctx.command_path",
    "racers.least", "file.url", "first", "fit.recipe.lr", "flag", "flag or 'with '", "flags[0]",
    "last", "least",
    "limit // 1024", "lower", "math.ceil(racers.least / per_second)",
    "math.ceil(training.batch_size / world.size) * world.size", "max(1, size // 2)",
    "max(part.resolutions)", "metric", "min(index, blocks)", "mode", "names", "nearest",
    "num", "number", "part.num",
    "recipe.norm_images * world.size", "res", "resolution", "self.trainer.training.lr",
    "-(-training.batch_size // VIRTUAL_RANKS) * VIRTUAL_RANKS",
    "1 << min(ranks, processes).bit_length() - 1",
    "math.ceil(batch / processes) * processes", "trainer.training.lr",
    "smaller", "spell(axis)", "there", "torch.cuda.device_count()", "whole",
    "self.provenance.get('command') or 'with what made it'",  # a command line, quoted as typed
}  # fmt: skip


def test_every_kind_has_an_advice_where_an_error_gives_none():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if issubclass(kind, errors.CdmError)]
    assert len(kinds) == 12
    for kind in kinds:
        assert "advice" in vars(kind)
        assert str(kind("wrong")) == f"wrong — Next: {kind.advice}"
        assert str(kind("wrong", next="do this")) == "wrong — Next: do this"


def advices(tree):
    """Every text that is given to an error as `next`, and what functions and names give to it."""
    waiting = [node.value for node in ast.walk(tree) if is_next(node)]
    seen = set()
    while waiting:
        value = waiting.pop()
        yield value
        for name in {*givers(value)} - seen:
            seen.add(name)
            waiting += sources(tree, name)


def givers(value):
    """Names and functions that stand for the whole text, or a way of it."""
    if isinstance(value, ast.Name):
        yield value.id
    elif isinstance(value, ast.Call):
        yield from givers(value.func)
    else:
        ways = {ast.IfExp: ("body", "orelse"), ast.BinOp: ("left", "right")}
        inner = [getattr(value, name) for name in ways.get(type(value), ())]
        for each in [*inner, *getattr(value, "values", [])]:
            yield from givers(each)


def is_next(node):
    return isinstance(node, ast.keyword) and node.arg == NEXT


def sources(tree, name):
    """What a function of that name returns, or what is assigned to the name as a text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name and returns_text(node):
            yield from (each.value for each in ast.walk(node) if isinstance(each, ast.Return))
        if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
            yield node.value


def returns_text(function):
    return function.returns is not None and ast.unparse(function.returns) == "str"


def bare(value):
    """What stands in an f-string of an advice and is neither quoted nor plain."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "quote":
        return
    if isinstance(value, ast.FormattedValue):
        word = ast.unparse(value.value)
        if word not in PLAIN and not word.startswith("quote("):
            yield word
        return
    for inner in ast.iter_child_nodes(value):
        yield from bare(inner)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_advice_can_lose_its_quoting(path):
    found = [word for advice in advices(ast.parse(path.read_text())) for word in bare(advice)]
    assert found == [], "quote(…) makes one word of it, whatever it holds"


def test_a_word_stays_one_word_in_a_shell():
    for name in ("a b.h5", "it's", "$HOME", "a;b", "plain.h5", "Zeichnung Nr. 1*"):
        assert shlex.split(f"mkdir -p {quote(Path(name))}") == ["mkdir", "-p", name]


def test_a_missing_directory_is_advised_as_one_word(tmp_path):
    with pytest.raises(MissingError) as caught:
        durable.write_file_atomically(tmp_path / "no such" / "x.h5", b"")
    assert shlex.split(caught.value.next) == ["mkdir", "-p", str(tmp_path / "no such")]


def test_a_directory_that_takes_no_files_is_no_missing_one():
    with pytest.raises(DiskError, match="/proc takes no new files") as caught:
        durable.write_file_atomically(Path("/proc/x.h5"), b"")
    assert "mkdir" not in caught.value.next


MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("can't start new thread"),
    RuntimeError("could not create a primitive"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", MEMORY, ids=str)
def test_whoever_lacks_memory_it_is_memory(error):
    assert is_out_of_memory(error)
    wrapped = ValueError("the file is damaged")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize(
    "error", [ImportError("no module named x"), RuntimeError("shapes differ"), KeyError("memory")]
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_a_shell_that_gives_too_little_memory_is_69_and_says_so():
    limited = f"ulimit -v 400000; exec {quote(sys.executable)} -m cdm_cli grid x.h5"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 69, done.stderr
    assert "ulimit -v" in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize(
    ("path", "what", "then"),
    [
        ("dta.h5", "dta.h5 does not exist; did you mean data.h5?", "cdm ls lists what is here"),
        ("home/smaples.h5", "does not exist; did you mean home/samples.h5?", "cdm ls"),
        ("lowres.h5", "lowres.h5 does not exist", "cdm sample makes it"),
        ("nowhere/data.h5", "nowhere/data.h5 does not exist", "cdm prepare SRC makes it"),
        ("nul\0.h5", "does not exist", "cdm ls"),
        ("link.h5", "link.h5 is a link that leads nowhere", "cdm ls"),
        ("n" * 300, "does not exist", "cdm ls"),
        (".lock", ".lock is a link, and is not followed", "cdm ls"),
    ],
)
def test_an_input_that_is_not_there_has_its_nearest_name_or_what_makes_it(
    path, what, then, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("data.h5", "home/samples.h5"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("link.h5").symlink_to("gone")
    Path(".lock").symlink_to("data.h5")  # which is opened with O_NOFOLLOW
    error = no_input(Path(path))
    assert what in error.what
    assert error.next.startswith(then)
    assert ("did you mean" in error.what) == ("did you mean" in what)
