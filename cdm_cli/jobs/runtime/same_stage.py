"""Whether a recorded digest is of a stage's configuration, weights and sampling defaults aside.

Sweeps, curves, searches and schedules record it. What samples are drawn with is recorded beside
it (`identity.list_chain_fields`), so that a stage whose sampling defaults were changed still
continues what it began. `Later` fields of a configuration that stand at their default leave no
trace.
"""

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, get_args

from cdm_cli.config import StageConfig
from cdm_cli.jobs.runtime.identity import Fields
from cdm_cli.names import Sampler, Variance


def compute_config_digest(config: StageConfig) -> str:
    """Return what tells stages of different configuration apart, as it is recorded today."""
    return _hash(config.model_dump_json(exclude={"sampling"}))


def is_digest_of(config: StageConfig, digest: object) -> bool:
    """Return whether a digest, of today or of an earlier version, is of this configuration."""
    if digest == compute_config_digest(config):
        return True
    return isinstance(digest, str) and digest in _list_earlier_digests(config)


def update_stage_digest(there: Fields, config: StageConfig) -> dict[str, Any]:
    """Return a recorded identity; where its digest is of this configuration, with that of today."""
    known = is_digest_of(config, there.get("stage"))
    return {**there, "stage": compute_config_digest(config)} if known else dict(there)


def _list_earlier_digests(config: StageConfig) -> Iterator[str]:
    """Yield the digests that earlier versions recorded, which were of the sampling defaults too.

    They do not tell which those were: the present ones come first, then all others, about seven
    for each step of the schedule.
    """
    own = config.sampling.model_dump_json()
    head, tail = config.model_dump_json().split(f'"sampling":{own}')
    begun = hashlib.sha256(f'{head}"sampling":'.encode())
    for text in itertools.chain([own], _list_defaults(config)):
        hashed = begun.copy()
        hashed.update(f"{text}{tail}".encode())
        yield hashed.hexdigest()


def _list_defaults(config: StageConfig) -> Iterator[str]:
    """Yield all sampling defaults that the stage could have had, as JSON."""
    for sampler in get_args(Sampler):
        variances = (None, *get_args(Variance)) if sampler == "ancestral" else (None,)
        for variance in variances:
            update = {"sampler": sampler, "steps": None, "variance": variance}
            text = config.sampling.model_copy(update=update).model_dump_json()
            yield text
            head, tail = text.split('"steps":null')
            for steps in range(1, config.schedule.T + 1):
                yield f'{head}"steps":{steps}{tail}'


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
