"""Mirrors cdm_cli/jobs/demo/demo.py and drawing.py.

The figures, and a transcript that parses.
"""

import os
import shlex
import signal
import sys
import time
import zipfile

import numpy as np
import pytest
import typer
from PIL import Image

from cdm_cli.app import app
from cdm_cli.errors import CdmError, StoppedError
from cdm_cli.jobs.demo import demo, drawing
from cdm_cli.jobs.demo.drawing import FIGURES, draw, write_images
from cdm_cli.options.files import DemoOptions
from cdm_cli.presets import PRESETS
from cdm_cli.signals import leave_when_asked
from tests.asking import as_typed
from tests.forking import fork

GROUP = typer.main.get_command(app)


def drawn(name, num=40, resolution=32, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([draw(name, resolution, rng) for _ in range(num)])


def cover(images):
    """How much ink each pixel has, 0..1, whatever the two colours are: [N, H, W]."""
    flat = images.reshape(len(images), -1, 3).astype(float)
    ground = flat[:, :1]  # the corner
    distance = np.abs(flat - ground).sum(-1)
    return (distance / distance.max(1, keepdims=True)).reshape(images.shape[:3])


@pytest.mark.parametrize("name", FIGURES)
def test_no_two_images_are_alike_and_edges_are_smooth(name):
    images = drawn(name)
    assert images.shape == (40, 32, 32, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 40
    inked = cover(images)
    assert ((inked > 0.1) & (inked < 0.9)).any((1, 2)).all(), "an image without a smooth edge"


@pytest.mark.parametrize("name", ["disk", "frame", "plus", "ring", "saltire", "square", "triangle"])
def test_a_figure_lies_inside_its_image(name):
    inked = cover(drawn(name, 100))
    border = np.concatenate([inked[:, 0], inked[:, -1], inked[:, :, 0], inked[:, :, -1]], 1)
    assert (border.max(1) < 0.6).all()


def test_known_figures_cover_what_geometry_says():
    """Size s of an image's width: a disk covers pi s², and the square (1.8 s)²."""
    areas = {name: cover(drawn(name, 400)).mean() for name in ("disk", "square", "ring")}
    low, high = drawing.FIGURE_SIZE
    mean_square = (high**3 - low**3) / 3 / (high - low)
    assert areas["disk"] == pytest.approx(np.pi * mean_square, rel=0.05)
    assert areas["square"] == pytest.approx(1.8**2 * mean_square, rel=0.05)
    assert areas["ring"] == pytest.approx(np.pi * (1 - 0.5**2) * mean_square, rel=0.07)


def test_the_archive_has_class_folders_and_the_same_bytes_again(tmp_path):
    paths = [tmp_path / f"{name}.zip" for name in "abc"]
    assert write_images(paths[0], per_class=3, resolution=16, seed=5) == 3 * len(FIGURES)
    write_images(paths[1], per_class=3, resolution=16, seed=5)
    write_images(paths[2], per_class=3, resolution=16, seed=6)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    with zipfile.ZipFile(paths[0]) as archive:
        names = archive.namelist()
        with archive.open(names[0]) as file, Image.open(file) as image:
            assert (image.size, image.mode) == ((16, 16), "RGB")
    assert {name.partition("/")[0] for name in names} == set(FIGURES)


LINES = [*demo.TRANSCRIPT.strip().splitlines(), *demo.JUDGED.strip().splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_every_line_of_the_transcript_is_a_command(line):
    name, *words = shlex.split(line.format(seed=0))
    context = GROUP.commands[name].make_context(name, words)
    assert context.params.get("preset") in (None, *PRESETS)


def test_the_demo_runs_each_line_in_its_directory(tmp_path, monkeypatch):
    ran, said = [], []
    monkeypatch.setattr(demo, "_run", lambda words, place, *, quiet: ran.append((words, place)))
    monkeypatch.setattr(
        demo, "write_enlarged", lambda *paths: ran.append((["enlarge"], paths[0].parent))
    )
    monkeypatch.setattr(demo, "list_lessons", lambda place: ["it follows", str(place)])
    monkeypatch.setattr(demo, "draw_picture", lambda *stores: Image.new("RGB", (3, 2)))
    monkeypatch.setattr(demo, "TRAIN_PER_CLASS", 2)
    monkeypatch.setattr(demo, "VAL_PER_CLASS", 1)
    directory = tmp_path / "new" / "demo"

    class Report:
        def say(self, line):
            said.append(line)

    result = demo.run(as_typed(DemoOptions, directory=directory, seed=3), Report())
    lines = [line.format(seed=3) for line in LINES]
    assert [shlex.join(words) for words, _ in ran] == [*lines[:-1], "enlarge", lines[-1]]
    assert {place for _, place in ran} == {directory}
    assert [line for line in said if "$" in line] == [f"$ cdm {line}" for line in lines]
    assert not any("\n" in line for line in said), "a report shows it as a backslash and an n"
    assert (directory / "train.zip").is_file()
    assert result.sweep_plot == directory / "sweep" / "sweep.png"
    with Image.open(result.picture) as shown:
        assert shown.size == (3, 2)
    assert result.show_in_short()[:2] == ["it follows", str(directory)], "its last words"
    assert str(result.picture) in result.show_in_short()[-1]


def test_a_command_that_fails_ends_the_demo_with_its_code(tmp_path):
    with pytest.raises(CdmError, match="cdm inspect ended with exit code 66") as caught:
        demo._run(["inspect", "nothing.h5"], tmp_path, quiet=True)
    assert caught.value.exit_code == 66


def test_what_another_demo_made_asks_for_another_directory(tmp_path):
    for seed in (0, 1):
        write_images(tmp_path / f"{seed}.zip", per_class=1, resolution=8, seed=seed)
    demo._run(["prepare", "0.zip", "-o", "data.h5"], tmp_path, quiet=True)
    with pytest.raises(CdmError, match="exit code 73") as caught:
        demo._run(["prepare", "1.zip", "-o", "data.h5"], tmp_path, quiet=True)
    assert caught.value.next == "cdm demo with another DIR"


def test_a_command_that_is_killed_ends_the_demo_as_a_shell_says_it(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport os\nos.kill(os.getpid(), 9)\n")
    script.chmod(0o755)
    monkeypatch.setattr(demo.sys, "executable", str(script))
    with pytest.raises(CdmError) as caught:
        demo._run(["train"], tmp_path, quiet=True)
    assert caught.value.exit_code == 137


WAITING = """#!{python} -u
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
with open("new", "w") as file:
    file.write(str(os.getpid()))
os.rename("new", "pid")
time.sleep(20)
sys.exit(3)
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 75), (9, -9)],
)
def test_no_command_outlives_the_demo(tmp_path, monkeypatch, number, code):
    script = tmp_path / "python"
    script.write_text(WAITING.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(demo.sys, "executable", str(script))
    demo_of = forked(lambda: demo._run(["train"], tmp_path, quiet=True))
    command = int(eventually(lambda: (tmp_path / "pid").read_text()))
    os.kill(demo_of, number)
    assert os.waitstatus_to_exitcode(os.waitpid(demo_of, 0)[1]) == code
    assert eventually(lambda: gone(command))


TIDYING = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # after Ctrl-C it asks for nothing more
def tidy(*_):
    time.sleep(0.2)
    open("tidied", "w").close()
    sys.exit(130)
signal.signal(signal.SIGINT, tidy)
os.kill(os.getppid(), signal.SIGINT)
os.kill(os.getppid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_second_ctrl_c_lets_the_command_remove_what_is_half_written(tmp_path, monkeypatch):
    """A terminal sends it to both; the demo would kill it otherwise."""
    script = tmp_path / "python"
    script.write_text(WAITING.format(python=sys.executable).replace("time.sleep(20)", TIDYING))
    script.chmod(0o755)
    monkeypatch.setattr(demo.sys, "executable", str(script))

    def interrupted():
        leave_when_asked()
        demo._run(["train"], tmp_path, quiet=True)

    assert os.waitstatus_to_exitcode(os.waitpid(forked(interrupted), 0)[1]) == 130
    assert (tmp_path / "tidied").exists()


def test_no_command_is_begun_after_a_signal(tmp_path, monkeypatch):
    """The one that runs ends well, in spite of it."""
    script = tmp_path / "python"
    deaf = "import os, signal\nsignal.signal(15, signal.SIG_IGN)\nos.kill(os.getppid(), 15)\n"
    script.write_text(f"#!{sys.executable}\n{deaf}")
    script.chmod(0o755)
    monkeypatch.setattr(demo.sys, "executable", str(script))
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        demo._run(["train"], tmp_path, quiet=True)


def forked(action):
    pid = fork()
    if pid == 0:
        code = 70
        try:
            action()
        except CdmError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return pid


def eventually(look):
    """Return the first true value that look finds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except FileNotFoundError:
            pass
        time.sleep(0.02)
    raise AssertionError("nothing in a minute")


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
