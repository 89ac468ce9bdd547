"""A command line for SGLang, read as SGLang's parser reads it, without importing SGLang."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oea_server.settings import SettingsError

MODEL_PATH = ("--model-path", "--model")
"""Where `sglang.cli` looks for the model before its parser does."""
MODEL = (*MODEL_PATH, "--model-p", "--model-pa", "--model-pat")
"""All spellings of the model's flag: SGLang's parser takes abbreviations."""
CONFIG = "--config"


def value(argv: Sequence[str], *flags: str) -> str | None:
    """The value of a flag, under any of its spellings; the last one counts, as it does in
    SGLang."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*flags, dest="value", nargs="?")
    found: str | None = parser.parse_known_args(list(argv))[0].value
    return found


def model_of(argv: Sequence[str]) -> str | None:
    """The model that a command line names: a flag, the first word, or a flag of its config file.

    Raises:
        SettingsError: the config file cannot be read.
    """
    if argv and not argv[0].startswith("-"):
        return argv[0]
    return value(merged(argv), *MODEL)


def override_of(argv: Sequence[str]) -> str | None:
    """The config override of a command line, JSON."""
    return value(argv, "--json-model-override-args")


def merged(argv: Sequence[str]) -> list[str]:
    """A command line with what its config file says in front, as flags: so that typed flags count.

    Raises:
        SettingsError: the file cannot be read, or is no mapping.
    """
    path = value(argv, CONFIG)
    return list(argv) if path is None else [*_flags(_read(path)), *argv]


def completed(argv: Sequence[str]) -> list[str]:
    """A command line in which SGLang's command finds the same model and config file as its
    parser."""
    model, path = model_of(argv), value(argv, CONFIG)
    whole = list(argv)
    if whole and not whole[0].startswith("-"):
        whole = ["--model-path", *whole]
    elif model is not None and value(argv, *MODEL_PATH) is None:
        whole = ["--model-path", model, *whole]
    if path is not None and CONFIG not in whole:  # SGLang would read past --config=FILE
        whole = [each for each in whole if not each.startswith(f"{CONFIG}=")] + [CONFIG, path]
    return whole


def _read(path: str) -> Mapping[str, Any]:
    import yaml

    try:
        said = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{CONFIG} {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{CONFIG} {path}: not YAML: {' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(said, dict | None) or not all(isinstance(name, str) for name in said or ()):
        raise SettingsError(f"{CONFIG} {path}: not a mapping of SGLang's options to their values")
    return said or {}


def _flags(said: Mapping[str, Any]) -> list[str]:
    """As `sglang.srt.utils.server_args_config_parser.ConfigArgumentMerger` makes them."""
    flags: list[str] = []
    for name, each in said.items():
        if each is False or each == []:
            continue
        flags.append(f"--{name.replace('_', '-')}")
        if each is not True:
            values = (
                each
                if isinstance(each, list)
                else [json.dumps(each) if isinstance(each, dict) else each]
            )
            flags += [str(one) for one in values]
    return flags
