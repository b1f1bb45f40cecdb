"""The words that flags and files may say; imported by `--help`, so nothing heavy stands here."""

import os
from typing import Literal

Variance = Literal["learned", "small", "large"]
Sampler = Literal["ancestral", "ddim", "dpm-solver++", "sde-dpm-solver++"]
Augment = Literal["truncated", "non-truncated"]
Crop = Literal["biggan", "adm"]
TimeInput = Literal["t", "sqrt_alpha_bar", "alpha_bar", "log_snr"]
Loss = Literal["simple", "hybrid", "vlb"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
InceptionMode = Literal["clean", "legacy-tensorflow", "legacy-pytorch"]
ExportFormat = Literal["png", "jpeg", "npz"]
Origin = Literal["guided-diffusion", "improved-diffusion"]
Searching = Literal["free", "linear"]
CasNet = Literal["resnet50", "resnet18", "small"]

METRICS = ("fid", "is", "kid", "prdc", "accuracy", "nn")
WITH_ERRORS = ("fid", "is", "kid", "accuracy")  # of these, two stores can be compared
OF_IMAGES = ("kid", "prdc", "nn")  # those that compare with real images one by one
BESIDES = ("cas", "elbo", "checkpoints")  # what `cdm eval` does besides, each alone
# Upper limits: of a store, of samples that are judged in memory, of a batch, of the processes of a
# host, and of steps, whose number has eight digits in the name of a checkpoint.
MOST_SAMPLES = 2**30
MOST_COUNTED = 2**25  # images whose labels are counted; their order is held in memory
MOST_CLASSES = 2**20
MOST_JUDGED = 10**7
MOST_BATCH = 2**20
MOST_PROCESSES = 256
MOST_RESOLUTION = 4096
MOST_STEPS = 10**8 - 1
LEAST_JUDGED = 20  # images that FID, its error and IS over ten splits can be computed from

RUNS_ENV, DATA_ENV, DEVICE_ENV = "CDM_RUNS", "CDM_DATA", "CDM_DEVICE"
RUNS = os.environ.get(RUNS_ENV) or "runs"
DATA = "data.h5"
LOWRES = "lowres.h5"
SAMPLES = "samples.h5"
SWEEP = "sweep"
CAS = "cas"
CURVE = "curve"
SCHEDULE = "schedule.json"
GRID = "grid.png"
REPORT = "report.html"
DEMO = "cdm-demo"
# Files by which a directory is known, and those that jobs of several rooms read.
SWEEP_FILE, RACE_FILE, CURVE_FILE, CAS_FILE = "sweep.json", "race.json", "curve.json", "cas.json"
CAS_TABLE, METRICS_FILE = "table.json", "metrics.jsonl"
