"""Which SGLang options clash with batch-aware routing, asked of a command line or of resolved
arguments."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from oea_server.engine import options
from oea_server.engine.options import Conflict
from oea_server.engine.options_apart import APART

SIMULATED = ("SGLANG_SIMULATE_UNIFORM_EXPERTS", "SGLANG_SIMULATE_ROUND_ROBIN_EXPERTS")


def find(option: Callable[[str], Any]) -> list[str]:
    """One line per conflict, given a way to look up SGLang's options (None where there is none)."""
    found = [said(conflict, option(conflict.option)) for conflict in clashing(option)]
    simulated = [
        name for name in SIMULATED if os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
    ]
    return found + [f"{name}: overrides every routing decision; unset it" for name in simulated]


def clashing(option: Callable[[str], Any]) -> list[Conflict]:
    """The conflicts themselves."""
    return [each for each in options.CONFLICTS if each.clashes(option(each.option))]


def said(conflict: Conflict, value: Any) -> str:
    """The line for a conflict."""
    flag = conflict.flag if value is True else f"{conflict.flag} {value}"
    return f"{flag}: {conflict.why}; {conflict.instead}"


def find_in_flags(argv: Sequence[str]) -> list[str]:
    """Clashing options of a command line, before SGLang is imported: early, so not the last word.

    Knows other spellings, and the abbreviations that SGLang's parser takes. What that parser would
    not take it leaves to SGLang, which has better words.
    """
    parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    for each in options.CONFLICTS:
        flags = (each.flag, *each.aliases)
        if each.clashes is bool and each.option.startswith("enable_") and not each.aliases:
            parser.add_argument(*flags, dest=each.option, action="store_true")
        else:
            parser.add_argument(*flags, dest=each.option, nargs="?", const=True)
    try:
        given = vars(parser.parse_known_args(list(argv))[0])
    except _NotTakenError:
        return []
    return find(given.get)


class _NotTakenError(Exception):
    """A command line that SGLang would not take either."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _NotTakenError(message)


def find_in_server_args(server_args: Any) -> list[str]:
    """Clashing options in SGLang's resolved arguments: the last word."""
    view = resolved(server_args)
    return [*find(lambda name: getattr(view, name, None)), *_together(view)]


def about_rows(server_args: Any) -> list[str]:
    """Clashing options under which the tokens among the rows are unknown, so that nothing can be
    counted."""
    view = resolved(server_args)
    found = clashing(lambda name: getattr(view, name, None))
    return [
        *(said(each, getattr(view, each.option)) for each in found if each.rows),
        *_together(view),
    ]


def _together(view: Any) -> list[str]:
    """The clashes of several options at once."""
    # imports torch, which a refused command line need not wait for
    from oea_server.engine import halves

    def option(name: str) -> Any:
        return getattr(view, name, None)

    found = options.dealt_out(option), options.halved(option, halves.untold)
    return [each for each in found if each is not None]


def unknown(server_args: Any) -> list[str]:
    """Options that the installed SGLang has, that are set, and that no table of ours names. No
    table has judged them, so the guard alone stands between them and wrong answers."""
    view = resolved(server_args)
    known = names()
    return sorted(
        name
        for name, default in fields(type(server_args)).items()
        if name not in known and _set(view, name, default)
    )


def names() -> set[str]:
    """All options that the tables name."""
    apart = {name for group in APART.values() for name in group}
    return apart | set(options.KEPT) | {each.option for each in options.CONFLICTS}


def fields(server_args: type) -> dict[str, Any]:
    """The fields of `ServerArgs` with their defaults: a dataclass up to 0.5.21, then a
    msgspec.Struct.

    A field without a plain default has `dataclasses.MISSING`.
    """
    if dataclasses.is_dataclass(server_args):
        return {each.name: each.default for each in dataclasses.fields(server_args)}
    import msgspec

    return {
        each.name: dataclasses.MISSING if each.default is msgspec.NODEFAULT else each.default
        for each in msgspec.structs.fields(server_args)
    }


def _set(view: Any, name: str, default: Any) -> bool:
    value = getattr(view, name, default)
    return bool(value) if default is dataclasses.MISSING else bool(value != default)


def resolved(server_args: Any) -> Any:
    """Arguments after SGLang's own defaulting, which 0.5.18+ keeps apart from what was typed."""
    try:
        from sglang.srt.arg_groups.overrides import resolving_view
    except ImportError:
        return server_args
    return resolving_view(server_args)
