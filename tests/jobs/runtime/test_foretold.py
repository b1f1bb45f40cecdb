"""Mirrors cdm_cli/jobs/runtime/foretold.py: the line that `--dry-run` begins with."""

import shutil

from cdm_cli.commands._render import write_lines
from cdm_cli.jobs.runtime.foretold import TIMED, Foretold
from cdm_cli.units import format_disk

PLAN = {
    "out": "x/y.h5", "estimated_seconds": 9540.0, "estimated_by": TIMED,
    "memory_bytes": 2**32, "disk_bytes": 20_800_000_000,
}  # fmt: skip


def test_time_memory_and_room_come_first(tmp_path):
    plan = Foretold(PLAN | {"out": str(tmp_path / "not" / "there" / "y.h5")})
    free = format_disk(shutil.disk_usage(tmp_path).free)
    said = "2 h 39 min on this device (timed here), 4.0 GiB of memory, 20.8 GB on disk (free: "
    assert write_lines(plan)[0].startswith(said)
    assert write_lines(plan)[0].rpartition(": ")[2].split()[1] == f"{free})".split()[1]
    assert plan["foretold"] == write_lines(plan)[0] == write_lines(plan, whole=False)[0]
    assert "estimated seconds  9540.0" in write_lines(plan)
    assert not any("seconds" in line for line in write_lines(plan, whole=False))
    assert "\n".join(write_lines(plan)).count(said) == 1


def test_what_is_not_known_is_not_made_up():
    assert Foretold({"stage": "base"})["foretold"] == "time unknown"
    assert Foretold({"estimated_seconds": 5.0})["foretold"] == "5 s on this device"
    nothing = Foretold({"estimated_seconds": 5.0, "disk_bytes": 0})["foretold"]
    assert nothing.startswith("5 s on this device, next to nothing on disk (free: ")


def test_counts_are_in_units_of_people_and_settings_left_to_v():
    plan = Foretold({
        "network_evaluations": 128_000, "training_flops": 7_509_049_344_000, "seed": 70_000,
        "checkpoint_bytes": 6_515_424, "resolutions": [8, 16], "model": {"dropout": 0.1},
        "points": [{"s": 0, "images": 400}],
    })  # fmt: skip
    assert write_lines(plan, whole=False)[1:] == [
        "", "network evaluations  128,000", "training flops       7.5 TFLOP",
        "seed                 70000", "checkpoint           6.5 MB", "resolutions          8, 16",
        "", "points:", "s  images", "0     400", "all settings: -v",
    ]  # fmt: skip
    assert "training flops       7509049344000" in write_lines(plan)
    assert "model dropout        0.1" in write_lines(plan)
