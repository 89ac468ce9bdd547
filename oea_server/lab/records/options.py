"""What the command line says, checked in one line each, before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from oea_server.routing.policy import Policy
from oea_server.routing.schedule import BY_BATCH, Schedule, number_or_schedule

MAX_BATCH = 512
MAX_EXPERTS = 1024
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="benchmarks/results/<machine> if not given"),
]
"""The option of every command that keeps a record."""


class OptionError(ValueError):
    """One clear line: the option, its value, the bounds."""


def number(option: str, text: str, low: int, high: int, whole: str | None = None) -> int:
    """An integer within bounds.

    Args:
        whole: what the option was given, where `text` is a part of it.

    Raises:
        OptionError: it is none, or outside `low`..`high`.
    """
    whole = text if whole is None else whole
    try:
        value = int(text)
    except ValueError:
        raise OptionError(f"{option}={whole}: {text.strip()!r} is not a whole number") from None
    if not low <= value <= high:
        raise OptionError(f"{option}={whole}: {value} is outside {low}..{high}")
    return value


def real(option: str, text: str, low: float, high: float) -> float:
    """A number within bounds.

    Raises:
        OptionError: it is none, or outside `low`..`high`.
    """
    try:
        value = float(text)
    except ValueError:
        raise OptionError(f"{option}={text}: is not a number") from None
    if not low <= value <= high:
        raise OptionError(f"{option}={text}: is outside {low:g}..{high:g}")
    return value


def numbers(option: str, text: str, low: int, high: int) -> list[int]:
    """Comma-separated integers within bounds, in the order given, each once.

    Raises:
        OptionError: one of them is no integer, or outside `low`..`high`, or there are none.
    """
    return list(
        dict.fromkeys(number(option, part, low, high, text) for part in _parts(option, text))
    )


def names(option: str, texts: Sequence[str], known: Collection[str]) -> list[str]:
    """Comma-separated or repeated names, each once.

    Raises:
        OptionError: a name is not known.
    """
    chosen = [part for text in texts for part in _parts(option, text)]
    for name in chosen:
        if name not in known:
            raise OptionError(f"{option}={name}: is none of {', '.join(known)}")
    return list(dict.fromkeys(chosen))


def policies(
    option: str, text: str, *, k: int, seed: int, ranks: int = 1, drafted: bool = False
) -> dict[str, Policy]:
    """``vanilla,random,pruned:3,oea:8/share=0.13/mix=0.5,fill:3,budget:6`` -> label -> policy, in
    the order given.

    Args:
        k: the model's experts per token, the upper bound of k0.
        seed: of the random policy.
        ranks: expert-parallel ranks, which fill and budget know.
        drafted: whether drafts are verified, which ``oea:3/draft_k0=1`` guarantees less.

    Raises:
        OptionError: a policy is not known, lacks its k0 or has one out of bounds.
    """
    found: dict[str, Policy] = {}
    for part in _parts(option, text):
        name, colon, k0 = part.partition(":")
        before = len(found)
        if name in ("vanilla", "random"):
            if colon:
                raise OptionError(f"{option}={part}: {name} takes no k0")
            found[name] = Policy.vanilla() if name == "vanilla" else Policy.random(seed)
        elif name in ("pruned", "oea", "fill"):
            if not k0:
                raise OptionError(f"{option}={part}: needs a k0 of 1..{k}, as in {name}:3")
            first, *knobs = [k0] if name == "pruned" else k0.split("/")
            value = number(option, first, 1, k, part)
            filled = partial(Policy.oea, pool="fill", ranks=ranks)
            makers: dict[str, Callable[..., Policy]] = {
                "pruned": Policy.pruned,
                "oea": Policy.oea,
                "fill": filled,
            }
            more = _more(option, part, knobs, value if drafted else 0)
            label = "".join(f"/{knob}={given}" for knob, given in more.items())
            found[f"{name}:{value}{label}"] = makers[name](value, **more)
        elif name == "budget":
            if not k0:
                raise OptionError(f"{option}={part}: needs experts per rank, as in budget:6")
            value = number(option, k0, 1, MAX_EXPERTS, part)
            found[f"budget:{value}"] = Policy.oea(1, pool="budget", ranks=ranks, rank_budget=value)
        else:
            raise OptionError(
                f"{option}={part}: is none of vanilla, random, pruned:K0, oea:K0, fill:K0, budget:D"
            )
        if len(found) == before:
            raise OptionError(f"{option}={text}: {part} is given twice")
    return found


def _more(option: str, part: str, knobs: Sequence[str], most: int) -> dict[str, Any]:
    """What stands behind a k0: ``share=0.13``, ``mix=0.5``, ``draft_k0=1``.

    Args:
        most: of draft_k0; 0 where it has no effect.
    """
    found: dict[str, float | Schedule[float]] = {}
    known = ("share", "mix", "draft_k0") if most else ("share", "mix")
    for each in knobs:
        name, _, text = each.partition("=")
        if name not in known or name in found:
            why = "is given twice" if name in found else f"is none of {', '.join(known)}"
            raise OptionError(f"{option}={part}: {name or 'a knob without a name'} {why}")
        if name == "draft_k0":
            found[name] = number(option, text, 1, most, part)
            continue
        try:
            found[name] = number_or_schedule(text, BY_BATCH[name])
        except ValueError as error:
            raise OptionError(f"{option}={part}: {error}") from None
    return found


def folder(option: str, path: Path | None) -> Path | None:
    """A directory to write to: there already, or possible to make.

    Raises:
        OptionError: it is, or lies under, something that is no directory.
    """
    if path is None:
        return None
    for part in (path, *path.parents):
        if part.exists():
            if not part.is_dir():
                raise OptionError(f"{option}={path}: {part} is not a directory")
            break
    return path


def _parts(option: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise OptionError(f"{option}={text}: a value is missing")
    return parts
