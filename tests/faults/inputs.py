"""What the jobs of `jobs.py` read, as small as it can be; torch is imported where it is needed."""

import io
import tarfile
from contextlib import chdir
from pathlib import Path

from cdm_cli.options.files import DemoOptions
from tests.asking import as_typed
from tests.drawings import class_images, write_zip

SMALL = {"channel_mult": (1,)}


def stage(home: Path) -> None:
    """Write a base stage."""
    from tests.tiny import base_config, write_stage

    write_stage(home / "runs/base", base_config(steps=2, **SMALL))


def stage_and_store(home: Path, num: int = 6, *, continuous: bool = False) -> None:
    """Write a super-resolution stage and a store that it enlarges."""
    from tests.tiny import arrays_of, continuous_config, model, sr_config, write_stage, write_store

    write_store(home / "lowres.h5", "samples", {"": arrays_of(num, [8], z=(5,))}, block_size=8)
    config = continuous_config(steps=2) if continuous else sr_config(steps=2)
    write_stage(home / "runs/sr", config.model_copy(update={"model": model(16, **SMALL)}))


def judge_and_store(home: Path, *, continuous: bool = False) -> None:
    """Write data, a judge, a super-resolution stage, and a store that it enlarges."""
    from tests.jobs.sweep.sweeping import write_judge
    from tests.tiny import arrays_of, write_store

    stage_and_store(home, num=24, continuous=continuous)
    write_judge(home / "runs/judge")
    real = {"train": arrays_of(24, [8, 16]), "val": arrays_of(20, [8, 16], seed=1)}
    write_store(home / "data.h5", "prepared", real)


def judge_and_continuous(home: Path) -> None:
    """Write the same with a stage whose schedule can be searched."""
    judge_and_store(home, continuous=True)


def data(home: Path) -> None:
    """Write prepared data."""
    from tests.tiny import arrays_of, write_store

    write_store(home / "data.h5", "prepared", {"train": arrays_of(12, [8])})


def images(home: Path) -> None:
    """Write images of three classes."""
    write_zip(home / "images.zip", class_images(per_class=2, height=8, width=8))


def packed_images(home: Path) -> None:
    """Write them into an archive that must be unpacked."""
    with tarfile.open(home / "images.tar.gz", "w:gz") as archive:
        for name, data in class_images(per_class=2, height=8, width=8).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def bad_images(home: Path) -> None:
    """Two of six are cut short, so that they are left out of the store."""
    files = class_images(per_class=2, height=8, width=8)
    cut = {name: files[name][:60] for name in sorted(files)[1:5:3]}
    write_zip(home / "images.zip", files | cut)


def parts(home: Path) -> None:
    """Write the two parts of 24 samples, three blocks, made by the real job."""
    from cdm_cli.jobs.sampling import sample
    from cdm_cli.options.sampling import Compute, SampleOptions
    from tests.faults.runs import settled
    from tests.tiny import Told

    stage(home)
    with chdir(home), settled():
        for part in (1, 2):
            sample.run(
                as_typed(SampleOptions, 
                    num=24, part=f"{part}/2", out=Path(f"p{part}.h5"),
                    compute=Compute(device="cpu", batch_size=2),
                ),
                Told(),
            )  # fmt: skip


def store(home: Path) -> None:
    """Write six samples in three blocks."""
    from tests.tiny import arrays_of, write_store

    write_store(home / "samples.h5", "samples", {"": arrays_of(6, [8])}, block_size=2)


def applied(home: Path) -> None:
    """Write a super-resolution stage to which something was applied that is not in force."""
    from cdm_cli.cascade.stagefile import read_stage_file, write_stage_file
    from cdm_cli.plans import Applied

    stage_and_store(home)
    file, found = read_stage_file(home / "runs/sr"), Applied(s=5, augment="non-truncated")
    write_stage_file(home / "runs/sr", file.model_copy(update={"applied": (found,)}))


def checkpoint(home: Path) -> None:
    """Write a checkpoint under the names of the peers."""
    from safetensors.torch import save_file

    from tests.cascade import openai_like

    save_file(openai_like.checkpoint(openai_like.stage()), home / "theirs.safetensors")


def coloured(home: Path) -> None:
    """Write samples and data of three colours."""
    from tests.jobs.judging.scoring import balanced, write_data, write_samples
    from tests.jobs.judging.scoring import coloured as arrays_of

    write_data(home / "data.h5", train=4, val=4)
    write_samples(home / "samples.h5", arrays_of(balanced(4), 3))


def judge_and_data(home: Path) -> None:
    """Write data and a judge."""
    from tests.jobs.sweep.sweeping import write_judge
    from tests.trained import write_data

    write_data(home / "data.h5")
    write_judge(home / "runs/judge")


def trained(home: Path) -> None:
    """Write a stage with checkpoints of two steps, and a judge."""
    from tests.trained import train

    judge_and_data(home)
    train(home, "training.keep=9", steps=4)


def swept(home: Path) -> None:
    """Write a sweep of two judged points, and a stage of two checkpoints, by the real jobs."""
    from tests.faults import runs
    from tests.trained import train, write_data

    judge_and_store(home)
    with chdir(home):
        runs.sweep()
    write_data(home / "more.h5")
    train(home, "training.keep=9", data=home / "more.h5", steps=4)


def raced(home: Path) -> None:
    """Write a race that is over, by the real job."""
    from tests.faults import runs

    judge_and_store(home)
    with chdir(home):
        runs.race()


def gridded(home: Path) -> None:
    """Write the grid of a race, by the real job."""
    from tests.faults import runs

    judge_and_store(home)
    with chdir(home):
        runs.grid_of_race()


def demonstrated(home: Path) -> None:
    """Write what the commands of a demo leave where it runs them."""
    from tests.jobs.demo.finished import write_data, write_demo

    directory = home / DemoOptions().directory
    directory.mkdir()
    write_data(directory / "data.h5")
    write_demo(directory)


def count_blocks(path: Path) -> int:
    """Return how many blocks of a store of samples are complete, 0 where it is not there yet."""
    from cdm_cli.data.store import open_store

    if not path.exists():
        return 0
    with open_store(path) as store:
        part = store.parts[""]
        return part.num_blocks - len(part.list_missing())
