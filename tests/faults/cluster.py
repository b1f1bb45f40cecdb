"""Stand-ins of sbatch, srun and scontrol: they set what SLURM sets, and run on this machine.

    python -m tests.faults.cluster

trains a small stage in two processes by the script of docs/cluster.md, sends SIGUSR1 to them after
the first checkpoint, and goes on until the script no longer requeues itself; takes a minute.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.tiny import arrays_of, write_store

DOCS = Path(__file__).parents[2] / "docs/cluster.md"
SRUN = """#!{python}
import os, signal, subprocess, sys
size = int(os.environ["STANDIN_TASKS"])
tasks = [
    subprocess.Popen(
        sys.argv[1:],
        env={{**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
             "SLURM_STEP_NUM_TASKS": str(size)}},
    )
    for rank in range(size)
]
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, _: [task.send_signal(number) for task in tasks])
with open("srun.pid", "w") as file:
    file.write(str(os.getpid()))
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/bin/sh
case "$1" in show) echo 127.0.0.1 ;; requeue) echo "$2" >> requeued ;; esac
"""
CDM = '#!/bin/sh\nexec {python} -m cdm_cli "$@"\n'
TRAIN = (
    "cdm train base --preset tiny-base8 --device cpu --steps 400 --batch-size 8 "
    "--set schedule.T=20 --set training.save_every=100 --set training.grid_every=0"
)


def script(command: str) -> str:
    """Return the script of the page, with another command after srun."""
    page = re.search(r"(?m)^    #!/bin/bash\n(?:    .*\n)+", DOCS.read_text())
    assert page is not None
    lines = [line[4:] for line in page[0].splitlines()]
    taken = [f"srun {command}" if line.startswith("srun ") else line for line in lines]
    assert taken != lines
    return "\n".join(taken) + "\n"


def install(directory: Path, srun: str = SRUN) -> dict[str, str]:
    """Write the stand-ins; return the environment of a batch job."""
    for name, text in (("srun", srun), ("scontrol", SCONTROL), ("cdm", CDM)):
        (directory / name).write_text(text.format(python=sys.executable))
        (directory / name).chmod(0o755)
    return {
        **os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "127.0.0.1", "STANDIN_TASKS": "2", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def sbatch(text: str, where: Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a batch script in a directory."""
    (where / "job.sh").write_text(text)
    return subprocess.Popen(["bash", "job.sh"], cwd=where, env=env)


def main() -> None:
    """Train until nothing is requeued, and tell how often it was."""
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        (where / "bin").mkdir()
        env = install(where / "bin")
        write_store(where / "data.h5", "prepared", {"train": arrays_of(64, [8])})
        job = sbatch(script(TRAIN), where, env)
        while not list(where.glob("runs/base/checkpoints/step-*/manifest.json")):
            assert job.poll() is None, "it ended before the first checkpoint"
            time.sleep(0.1)
        os.kill(int((where / "srun.pid").read_text()), signal.SIGUSR1)
        assert job.wait() == 75
        assert (where / "requeued").read_text() == "17\n"
        assert sbatch(script(TRAIN), where, env).wait() == 0
        assert (where / "requeued").read_text() == "17\n", "done is not requeued"
        sys.stdout.write("stopped with 75, requeued once, finished with 0\n")


if __name__ == "__main__":
    main()
