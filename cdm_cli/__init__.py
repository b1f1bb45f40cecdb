"""Cascaded diffusion models, on the command line and from Python (docs/api.md).

Every name is loaded when it is first asked for, so that `import cdm_cli` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cdm_cli.__version__ import __version__

if TYPE_CHECKING:
    from cdm_cli.api.drawing import LoadedStage, load_stage, sample, upsample
    from cdm_cli.api.judging import evaluate, fid, load_judge, reference
    from cdm_cli.api.reading import Samples, read
    from cdm_cli.data.store import open_store
    from cdm_cli.errors import CdmError

__all__ = [
    "CdmError", "LoadedStage", "Samples", "__version__", "evaluate", "fid", "load_judge",
    "load_stage", "open_store", "read", "reference", "sample", "upsample",
]  # fmt: skip
_HOMES = {
    "errors": ("CdmError",),
    "data.store": ("open_store",),
    "api.reading": ("Samples", "read"),
    "api.drawing": ("LoadedStage", "load_stage", "sample", "upsample"),
    "api.judging": ("evaluate", "fid", "load_judge", "reference"),
}
_HOME = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a misspelled name is an error of the type checker, too

    def __getattr__(name: str) -> Any:
        """Load what is asked for; raise AttributeError for what is not offered."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(import_module(_HOME[name]), name)
        return found


def __dir__() -> list[str]:
    """Return what is offered, loaded or not."""
    return sorted({*globals(), *__all__})
