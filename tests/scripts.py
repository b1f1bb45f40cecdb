"""The scripts of docs/evidence from end to end, on drawn images and tiny networks.

    python -m tests.scripts [NAME …]

Each runs in an empty directory, with a `cdm` on its PATH that takes a few steps and 160 images
where the script says thousands: so a file that two lines write, or that a line misses, is found.
Some minutes each.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cdm_cli.__main__ import main as cdm_main
from tests.drawings import class_images, write_zip
from tests.faults.longer import say
from tests.tree import ROOT

SCRIPTS = ROOT / "docs" / "evidence"
COLOURS = {f"kind-{k}": (25 * k, 250 - 25 * k, 60 * (k % 4)) for k in range(10)}
FEW = {"--steps": "6", "--num": "160", "--epochs": "1", "--batch-size": "8"}  # of a larger number
SMALL = ("model.base_channels=8", "model.channel_mult=[1]", "model.norm_groups=4",
         "model.attention_resolutions=[]", "training.grid_every=0")  # fmt: skip
MORE = {"sample": ["--steps", "8"], "upsample": ["--steps", "4"], "sweep-s": ["--steps", "4"]}


def shrink(words: list[str]) -> list[str]:
    """Return a command line that does the same with less work."""
    small = [FEW.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    small = ["small" if word == "resnet18" else word for word in small]
    if words[0] != "train":
        return [*small, *MORE.get(words[0], [])]
    for setting in ("base_channels=8",) if "classifier" in words else SMALL:
        small += ["--set", setting]
    return [*small, *([] if "--batch-size" in words else ["--batch-size", "16"])]


def run_script(script: Path, directory: Path) -> int:
    """Run a script in an empty directory beside drawn archives; return its exit status."""
    for name, per_class in (("train", 16), ("test", 16)):
        write_zip(directory / f"{name}.zip", class_images(per_class, 32, 32, classes=COLOURS))
    (directory / "bin").mkdir()
    command = directory / "bin" / "cdm"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.scripts --as-cdm "$@"\n')
    command.chmod(0o755)
    (directory / "work").mkdir()
    path = {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    words = ["bash", "-x", str(script), "../train.zip", "../test.zip"]
    with (directory / "log").open("w") as log:
        return subprocess.run(
            words, cwd=directory / "work", env=os.environ | path, stdout=log, stderr=log
        ).returncode


def main(names: list[str]) -> None:
    """Run the scripts of these names, all without any; end with 1 if one did not get to its end."""
    scripts = [SCRIPTS / f"{name}.sh" for name in names] or sorted(SCRIPTS.glob("*.sh"))
    failed = 0
    for script in scripts:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            status = run_script(script, Path(place))
            say(f"{script.name}: {status}, {time.monotonic() - start:.0f} s")
            if status:
                failed = 1
                say((Path(place) / "log").read_text()[-2000:])
    sys.exit(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-cdm"]:
        sys.argv = ["cdm", *shrink(sys.argv[2:])]
        cdm_main()
    else:
        main(sys.argv[1:])
