"""A file of `oea-server calibrate`: what was found to be good enough, by batch size."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from oea_server.routing.schedule import MIX, SHARE, Schedule, number_or_schedule


class Calibrated(NamedTuple):
    """What a file of `oea-server calibrate` holds: k0, share and mix by batch size, and for which
    top k."""

    k0: Schedule[int]
    share: float | Schedule[float]
    mix: float | Schedule[float]
    k: int


def calibrated(path: str, k: int | None) -> Calibrated:
    """What is in a file of `oea-server calibrate`; read once: the same as long as a process lives.

    Args:
        k: the experts per token of the model that it is for; None if that is not known yet.

    Raises:
        ValueError: the file is not there, is none, or is for a model with another top k.
    """
    found = _content(path)
    if k is not None and k != found.k:
        raise ValueError(
            f"schedule={path}: it is for a model of top-{found.k}, and this one's is {k}; calibrate"
            " this model"
        )
    return found


NO_FILE = (
    *(AttributeError, KeyError, TypeError, OverflowError, RecursionError),
    *(UnicodeDecodeError, json.JSONDecodeError),
)
"""What comes of reading one out of something else."""


@lru_cache(maxsize=16)
def _content(path: str) -> Calibrated:
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        share, mix = (
            number_or_schedule(str(content.get(knob.name, none)), knob)
            for knob, none in ((SHARE, 0), (MIX, 1))
        )
        return Calibrated(Schedule.of(str(content["k0"])), share, mix, int(content["k"]))
    except OSError as error:
        raise ValueError(f"schedule={path}: {error.strerror}") from None
    except NO_FILE:
        raise ValueError(
            f"schedule={path}: not a file of 'oea-server calibrate'; name what it wrote"
        ) from None
    except ValueError as error:
        raise ValueError(f"schedule={path}: {error}") from None
