"""What every command promises: help with an example, light imports, flags that are fields."""

import dataclasses
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer
from annotated_types import Le, Lt
from typer.testing import CliRunner

import cdm_cli
from cdm_cli.app import COMMANDS, app
from cdm_cli.commands._help import ORDER, write_help
from cdm_cli.commands.table import TABLE
from cdm_cli.options.cas import CasOptions
from cdm_cli.options.flag import list_flags

ROOT = Path(cdm_cli.__file__).parent.parent
GROUP = typer.main.get_command(app)
NAMES = list(COMMANDS)
HEAVY = {"torch", "pydantic", "numpy", "rich", "h5py", "scipy", "PIL", "cleanfid", "matplotlib"}
# Fields that no flag sets: the workspace fixes runs/, -q stands before all commands, and sweep-s
# has one axis.
UNFLAGGED = {("train", "runs"), ("demo", "quiet"), ("sweep-s", "axes"), ("prune", "agreed")}


@pytest.mark.parametrize("name", NAMES)
def test_help_has_an_example_of_the_command(name):
    result = CliRunner().invoke(app, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert re.search(rf"Example: cdm {name}\b", result.output)


@pytest.mark.parametrize("name", NAMES)
def test_every_flag_and_argument_has_help(name):
    for param in GROUP.commands[name].params:
        assert param.help, f"{name}: {param.name}"
        assert param.help.endswith((".", "]"))


@pytest.mark.parametrize("name", NAMES)
def test_two_examples_parse(name):
    """Every flag of an example is a flag of the command, and its words are as many as it takes."""
    command = GROUP.commands[name]
    examples = re.findall(rf"Example: cdm {name}\b(.*)", command.help)
    assert len(examples) >= 2
    for example in examples:
        command.make_context(name, shlex.split(example.partition(" > ")[0]))


@pytest.mark.parametrize("name", NAMES)
def test_every_flag_stands_in_a_group_with_its_default_and_range(name):
    said = CliRunner().invoke(app, [*name.split(), "--help"]).output
    headings = [
        line.rstrip(":") for line in said.splitlines() if re.fullmatch(r"[A-Z][\w ]+:", line)
    ]
    assert headings == [heading for heading in ("Arguments", *ORDER) if heading in headings]
    for param in GROUP.commands[name].params:
        if param.param_type_name == "option" and not param.required and param.name != "help":
            assert re.search(r"\[default: [^\]]+", param.help), param.name


@pytest.mark.parametrize("command", TABLE, ids=lambda command: command.name)
def test_every_number_has_a_range(command):
    for item in list_flags(command.options):
        if {int, float} & {item.kind, *get_args(item.kind)} - {bool} and item.kind is not bool:
            assert re.search(r"\d or more|\d to \d|more than \d", write_help(item)), item.name


def test_the_range_that_is_said_is_the_range_that_is_checked():
    said = {item.name: write_help(item) for item in list_flags(CasOptions)}
    assert "[default: 256; 2 to 1048576]." in said["batch_size"]
    assert "[default: 0.1; 0 or more, less than 1]." in said["label_smoothing"]
    assert "[default: 0; 0 or more, less than 2^63]." in said["seed"]
    assert "[default: $CDM_DATA or data.h5]." in said["ref"]
    done = CliRunner().invoke(app, ["eval", "cas", "--batch-size", "1"])
    assert "--batch-size 1: expected 2 or more" in done.stderr


@pytest.mark.parametrize("command", TABLE, ids=lambda command: command.name)
def test_every_field_has_a_flag(command):
    fields = {field.name for field in dataclasses.fields(command.options)}
    fields -= {item.path[0] for item in list_flags(command.options)}
    assert {(command.name, name) for name in fields} <= UNFLAGGED


@pytest.mark.parametrize("command", TABLE, ids=lambda command: command.name)
def test_its_job_has_what_the_row_says(command):
    job = importlib.import_module(command.job)
    assert callable(job.run)
    assert callable(getattr(job, "plan", None)) is command.plans


@pytest.mark.parametrize("name", NAMES)
def test_its_row_is_in_the_docs(name):
    assert f"| `cdm {name}" in (ROOT / "docs" / "commands.md").read_text()


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["train", "--help"], {"pydantic"}),
        (["ls"], {"pydantic", "numpy"}),
    ],
)
def test_help_imports_nothing_heavy(words, allowed):
    assert imported([words], 0) & HEAVY <= allowed


WRONG = """
    sample --num x | sample --num 0 | sample --nmu 3 | sample --sampler dimm | sample -o x.png
    sample --part 3/2 | sample --num 5 --per-class 5 | sample --variance small --sampler ddim
    train base --preset cifar-base61 | train base --preset tiny-base8 --set lr=1 | train a/b
    train base --preset tiny-base8 --set training.lr=x | train base --select fdi
    upsample https://host/lowres.h5 | upsample --s many | sweep-s --s 1,x | sweep-s -o sweep.h5
    tune-schedule -o schedule.h5 | tune-schedule --num 3 | eval fidd | eval fid -o table.txt
    eval fid,cas | eval elbo --terms 1 | eval cas --epochs 0 | eval checkpoints --num 1
    grid -o grid.jpg | grid --per-class 3 --columns 2 | export -o - | export -o pictures.png
    merge -o x.zip a.h5 | import a.pt -o base.safetensors | verify x.h5 --replay 0 | prepare s3://b/c
    nope | sweep-s --num 5
"""


def test_a_wrong_command_line_is_known_before_torch_is_loaded():
    """The options of every command judge what they can alone; 2.7 s are not spent on a slip."""
    lines = [line.split() for line in WRONG.replace("\n", "|").split("|") if line.strip()]
    assert not imported(lines, 2) & {"torch", "scipy", "matplotlib", "cleanfid"}


def imported(lines, code):
    """Return what is loaded after cdm has run each line, which must end with that exit code."""
    source = (
        "import sys; from cdm_cli.app import app\n"
        "for line in sys.argv[1].splitlines():\n"
        "    try: app(line.split(' ') if line else None)\n"
        f"    except SystemExit as end: assert (end.code or 0) == {code}, (line, end.code)\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    words = "\n".join(" ".join(line) for line in lines)
    done = subprocess.run(
        [sys.executable, "-c", source, words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("command", TABLE, ids=lambda command: command.name)
def test_a_number_that_is_typed_has_an_upper_limit_so_that_none_is_infinite(command):
    for item in list_flags(command.options):
        if float in (item.kind, *get_args(item.kind)):
            assert any(isinstance(limit, Le | Lt) for limit in item.limits), item.name
