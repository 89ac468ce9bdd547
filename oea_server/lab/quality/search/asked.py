"""What `oea-server calibrate` is asked to search, checked before anything is loaded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from oea_server.lab.quality import calibrate
from oea_server.lab.quality.search import measuring
from oea_server.lab.records import options
from oea_server.observe import latency
from oea_server.observe.latency import Line
from oea_server.oneline import oneline

AGAINST = ("T", "busiest", "latency")
NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LEAST_PIECES = 4
"""Pieces of the text: a search that could not give the better rules more of it than the others
would be none."""
DEFAULTS = {"batch": "2,4,8,16,32,64", "sequences": "256", "length": "128", "seed": "0"}


class Wanted(NamedTuple):
    """What to search on.

    Args:
        model: a directory; the demo model's if None.
        source: a text; the demo's held-out if None.
        ranks: equal parts of the experts, of which the busiest counts as read; 1 for T.
        budget: as `calibrate.budget` reads it.
        lines: latency against experts read, if that is what is to be small.
        command: that asks for the same.
        name: of the files.
    """

    model: str | None
    source: Path | None
    batches: Sequence[int]
    sequences: int
    length: int
    ranks: int
    seed: int
    budget: str
    lines: Sequence[Line]
    command: str
    name: str = "calibrate"


def read(given: Mapping[str, Any]) -> Wanted:
    """Read options, None where they were not given.

    Raises:
        ValueError: one line: the option, its value and the bounds.
    """
    said = {
        name: given[name] if given[name] is not None else text for name, text in DEFAULTS.items()
    }
    batches = sorted(options.numbers("--batch", said["batch"], 2, options.MAX_BATCH))
    sequences = options.number("--sequences", said["sequences"], 2, 1_000_000)
    length = options.number("--length", said["length"], 2, 1_000_000)
    seed = options.number("--seed", said["seed"], 0, 2**31 - 1)
    for batch in batches:
        size = measuring.piece_of(batch)
        if sequences % size or size % batch:
            raise ValueError(
                f"--sequences={sequences} --batch={batch}: batches have to fill pieces of {size}"
                " sequences, and these the text"
            )
        if sequences < LEAST_PIECES * size:
            raise ValueError(
                f"--sequences={sequences}: fewer than {LEAST_PIECES * size}, {LEAST_PIECES} pieces"
                f" of {size} for batches of {batch}"
            )
    if calibrate.budget(given["budget"], {"rows": [{"arm": "vanilla", "loss": [1.0]}]}) == 0:
        raise ValueError(f"--budget={given['budget']}: nothing but vanilla costs nothing")
    if given["model"] is not None and not Path(given["model"]).is_dir():
        raise ValueError(f"--model-path={oneline(given['model'])}: is not a directory")
    if given["name"] is not None and not NAMED.fullmatch(given["name"]):
        raise ValueError(
            f"--name={oneline(given['name'])}: letters, digits, '.', '_' and '-' make a file's name"
        )
    against = options.names("--against", [given["against"] or "T"], AGAINST)
    if len(against) > 1:
        raise ValueError(f"--against={given['against']}: is more than one of {', '.join(AGAINST)}")
    ranks = (
        1
        if given["ranks"] is None
        else options.number("--ranks", given["ranks"], 2, options.MAX_EXPERTS)
    )
    if against == ["T"] and ranks > 1:
        raise ValueError(
            f"--ranks={ranks}: T is counted over all ranks; for the busiest one's --against busiest"
        )
    if against == ["busiest"] and ranks == 1:
        raise ValueError(
            "--against=busiest: needs --ranks, the parts that the experts are split into"
        )
    if (against == ["latency"]) != (given["latency"] is not None):
        raise ValueError(
            "--against=latency and --latency=FILE, a moe-*.json of 'oea-server bench moe', go"
            " together"
        )
    lines = latency.read(given["latency"]) if given["latency"] is not None else []
    return Wanted(
        *(
            given["model"],
            given["text"],
            batches,
            sequences,
            length,
            ranks,
            seed,
            given["budget"],
            lines,
        ),
        _command(given),
        *([given["name"]] if given["name"] is not None else []),
    )


def _command(given: Mapping[str, Any]) -> str:
    """Without paths of the machine."""
    flags = []
    for name, value in given.items():
        if value is not None:
            is_path = name in ("model", "text", "latency")
            flags += [
                f"--{'model-path' if name == 'model' else name}",
                Path(value).name if is_path else str(value),
            ]
    return shlex.join(["oea-server", "calibrate", *flags])
