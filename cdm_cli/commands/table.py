"""The commands of `cdm`, a row each: its options, its job, and what `--help` says of it."""

from dataclasses import dataclass

from cdm_cli.options.cas import CasOptions
from cdm_cli.options.files import (
    DemoOptions,
    ExportOptions,
    GridOptions,
    ImportOptions,
    MergeOptions,
    PrepareOptions,
    VerifyOptions,
)
from cdm_cli.options.judging import CurveOptions, ElboOptions, EvalOptions, TuneOptions
from cdm_cli.options.sampling import SampleOptions, UpsampleOptions
from cdm_cli.options.sweeping import SweepOptions, SweepSOptions
from cdm_cli.options.training import TrainOptions
from cdm_cli.options.workspace import (
    DefaultsOptions,
    EnvOptions,
    InspectOptions,
    ListOptions,
    PruneOptions,
    ReportOptions,
)


@dataclass(frozen=True)
class Command:
    """One command. job: the module whose `run` does it; if `plans`, its `plan` tells the cost.

    asks: what `plan` returns has `make_question`, which a person says yes to before it is done.
    check: "module:function" that raises UsageError for options that it can judge without torch.
    """

    name: str
    options: type
    job: str
    says: str
    examples: tuple[str, ...]
    plans: bool = False
    asks: bool = False
    check: str = ""

    @property
    def help(self) -> str:
        """What `--help` shows above the flags."""
        examples = "\n".join(f"Example: {example}" for example in self.examples)
        return f"{self.says}\n\n\b\n{examples}"


JOBS = "cdm_cli.jobs"
TABLE = (
    Command(
        "prepare", PrepareOptions, f"{JOBS}.prepare.prepare",
        "Turn images into a store for training and judging.",
        (
            "cdm prepare train.zip --val test.zip --resolution 16 --resolution 32",
            "cdm prepare images/ --labels labels.csv -o data.h5 --resolution 64",
        ), plans=True,
    ),
    Command(
        "train", TrainOptions, f"{JOBS}.training.train",
        "Train a stage; the same command again continues it.",
        (
            "cdm train base --preset cifar-base16 --steps 15000",
            "cdm train sr --preset cifar-sr16-32 --set model.dropout=0.2 --gpus 2",
        ), plans=True,
        check="cdm_cli.presets:check_asked",
    ),
    Command(
        "sample", SampleOptions, f"{JOBS}.sampling.sample",
        "Draw class-balanced images from a base stage.",
        (
            "cdm sample base --classes 0-9 --num 10000 --keep-s 251,501",
            "cdm sample base --per-class 100 --seed 1 --dry-run",
        ), plans=True,
    ),
    Command(
        "upsample", UpsampleOptions, f"{JOBS}.sampling.upsample",
        "Upsample every image of a store, given z_s.",
        (
            "cdm upsample lowres.h5 --model sr --s 501 -o samples.h5",
            "cdm upsample x8.h5 --augment truncated --s 251 -o x16.h5",
        ), plans=True,
    ),
    Command(
        "sweep-s", SweepSOptions, f"{JOBS}.sweep.sweep",
        "Find the best s: upsample with each and judge.",
        (
            "cdm sweep-s --s 0,251,501,1001 --num 2000 --features features",
            "cdm sweep-s lowres.h5 --model sr --ground-truth -o sweep",
            "cdm sweep-s --race --budget 30m --features features",
        ), plans=True,
    ),
    Command(
        "sweep", SweepOptions, f"{JOBS}.sweep.sweep",
        "Compare settings of sampling: upsample with each and judge.",
        (
            "cdm sweep --axis s=0,251,501 --axis steps=8,25 --features features",
            "cdm sweep --axis sampler=ancestral,ddim --axis steps=25,100 -o grid",
        ),
        plans=True,
    ),
    Command(
        "tune-schedule", TuneOptions, f"{JOBS}.tune.tune",
        "Search times and noise for few sampling steps.",
        (
            "cdm tune-schedule --s 501 --steps 8,16 --features features --apply",
            "cdm tune-schedule --model base --steps 8,20 --features features",
        ), plans=True,
    ),
    Command(
        "eval", EvalOptions, f"{JOBS}.judging.evaluate",
        "Judge samples against real images.",
        (
            "cdm eval fid samples.h5 --ref data.h5 --features features --json",
            "cdm eval all samples.h5 --against other.h5 --features features",
            "cdm eval fid,is s0.h5 s501.h5 --against single.h5 -o arms.csv",
        ), plans=True,
    ),
    Command(
        "eval cas", CasOptions, f"{JOBS}.cas.cas",
        "Train a classifier on samples, and test it on real images.",
        (
            "cdm eval cas samples.h5 --ref data.h5 --gpus 8",
            "cdm eval cas samples.h5 --net small --epochs 20 --dry-run",
        ), plans=True,
    ),
    Command(
        "eval elbo", ElboOptions, f"{JOBS}.elbo.elbo",
        "Bound the bits per dimension of real images.",
        (
            "cdm eval elbo base sr --s 501 --num 1000",
            "cdm eval elbo base --num 200 --terms 0",
        ), plans=True,
    ),
    Command(
        "eval checkpoints", CurveOptions, f"{JOBS}.curve.curve",
        "Judge the saved checkpoints of a stage by FID.",
        (
            "cdm eval checkpoints base --num 2000 --features features",
            "cdm eval checkpoints sr --weights step-00001000,ema --s 501",
        ), plans=True,
    ),
    Command(
        "defaults", DefaultsOptions, f"{JOBS}.sampling.defaults",
        "Show what `cdm upsample` does with a stage by default, or go back.", (
            "cdm defaults sr",
            "cdm defaults sr --take 0",
        ),
    ),
    Command(
        "demo", DemoOptions, f"{JOBS}.demo.demo",
        "Run the whole cascade on images drawn on the spot.", (
            "cdm demo",
            "cdm demo try --seed 1",
        ),
    ),
    Command(
        "ls", ListOptions, f"{JOBS}.workspace.ls",
        "List the stages and stores of a workspace.", ("cdm ls", "cdm ls runs/base"),
    ),
    Command(
        "prune", PruneOptions, f"{JOBS}.workspace.prune",
        "Remove what can be made again: old checkpoints, judged images.",
        ("cdm prune --dry-run", "cdm prune sweep --yes"), plans=True, asks=True,
    ),
    Command(
        "env", EnvOptions, f"{JOBS}.workspace.env",
        "Tell versions, device and settings, for a report of a fault.",
        ("cdm env", "cdm env --json"),
    ),
    Command(
        "inspect", InspectOptions, f"{JOBS}.checking.inspect",
        "Show what a file holds and where it came from.", (
            "cdm inspect samples.h5",
            "cdm inspect runs/base --json",
        ),
    ),
    Command(
        "grid", GridOptions, f"{JOBS}.pictures.grid",
        "Lay the images of a store out as one PNG, or those of several side by side.",
        (
            "cdm grid samples.h5 -o grid.png --per-class 8",
            "cdm grid lowres.h5 samples.h5 -o beside.png",
        ),
    ),
    Command(
        "report", ReportOptions, f"{JOBS}.reporting.report",
        "Write one page of HTML on a stage, a sweep, a score or a store.",
        ("cdm report runs/base -o base.html", "cdm report sweep -o sweep.html"),
    ),
    Command(
        "verify", VerifyOptions, f"{JOBS}.checking.verify",
        "Check every byte of a store or a stage.", (
            "cdm verify samples.h5 --replay 4",
            "cdm verify runs/base",
        ),
    ),
    Command(
        "merge", MergeOptions, f"{JOBS}.exchange.merge",
        "Join stores that were made with --part.",
        (
            "cdm merge part1.h5 part2.h5 part3.h5 -o samples.h5",
            "cdm merge part*.h5 -o samples.h5",
        ),
    ),
    Command(
        "export", ExportOptions, f"{JOBS}.exchange.export",
        "Write the images of a store as files, or as one .npz.",
        (
            "cdm export samples.h5 -o samples.npz",
            "cdm export samples.h5 -o pictures --format jpeg --num 100",
        ),
    ),
    Command(
        "import", ImportOptions, f"{JOBS}.exchange.import_any",
        "Make a stage of an openai checkpoint, or a store of images.",
        (
            "cdm import 64x64_diffusion.pt --from-pickle -o runs/base",
            "cdm import samples.npz -o samples.h5",
            "cdm import their.h5 --images x --labels y -o images.h5",
        ),
    ),
)  # fmt: skip
