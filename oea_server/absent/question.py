"""What `doctor --on CARD` is asked: the card, the model's config, and SGLang's flags as they will
be typed there."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from oea_server.absent.cards import CARDS, Card
from oea_server.command_line import MODEL, merged, model_of, value
from oea_server.oneline import oneline
from oea_server.settings import SettingsError

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
ON, CONFIG = "--on", "--model-config"
DRAFT = "--speculative-draft-model-path"
DRAFTS = (DRAFT, "--speculative-draft-model")
DRAFT_CONFIG = {
    "architectures": ["LlamaForCausalLMEagle3"],
    "model_type": "llama",
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "draft_vocab_size": 32000,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
"""Stands in for a draft model that is not here: it has a router of its own or none, and no policy
reaches it."""


class Question(NamedTuple):
    """One command line, for one card."""

    card: Card
    argv: list[str]
    """Without our two flags."""
    config: dict[str, Any]
    """The model's config.json."""
    model: str
    """Path of the config."""
    notes: list[str]
    """What was taken instead of something that is not here."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)


def go_offline() -> None:
    """Nothing is downloaded from here on. Before huggingface_hub is imported, which keeps what it
    reads."""
    os.environ.update(dict.fromkeys(OFFLINE, "1"))


def asked_elsewhere(argv: Sequence[str]) -> bool:
    """Whether a command line of doctor names a card."""
    return any(each.split("=")[0] == ON for each in argv)


def read(argv: Sequence[str]) -> Question:
    """Read a command line.

    Raises:
        SettingsError: one line.
    """
    go_offline()
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument(ON, required=True)
    parser.add_argument(CONFIG)
    ours, rest = parser.parse_known_args(list(argv))
    card = CARDS.get(ours.on.lower())
    if card is None:
        raise SettingsError(
            f"{ON} {oneline(ours.on, 40)}: not a card that is known; known are {', '.join(CARDS)}"
        )
    named = model_of(rest)
    notes: list[str] = []
    if ours.model_config is not None:
        path = Path(ours.model_config)
        config = read_config(path, CONFIG)
    elif named is None:
        raise SettingsError(f"no model is named: {CONFIG} FILE, or --model-path")
    else:
        path = config_of(named)
        config = read_config(path, "--model-path")
    if "auto_map" in config:
        config = {name: each for name, each in config.items() if name != "auto_map"}
        notes.append(
            "the model's own Python code is not read: its config is SGLang's class for its"
            " model_type"
        )
    return Question(card, without(rest, MODEL), config, str(path), notes)


def config_of(model: str) -> Path:
    """The config of a folder, or of a hub name whose files are on this machine."""
    if Path(model).is_dir():
        return Path(model) / "config.json"
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(model, "config.json")
    except ValueError:  # no hub name
        found = None
    if isinstance(found, str):
        return Path(found)
    raise SettingsError(
        f"{oneline(model, 100)} is not on this machine, and nothing is downloaded: {CONFIG} FILE"
    )


def read_config(path: Path, flag: str) -> dict[str, Any]:
    """A model's config.

    Raises:
        SettingsError: it cannot be read, or is none.
    """
    said = f"{flag} {oneline(str(path), 200)}"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{said}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{said}: not JSON: {oneline(str(error), 100)}") from None
    if not isinstance(config, dict):
        raise SettingsError(f"{said}: not a JSON object, as a model's config is")
    return config


def laid_out(question: Question, folder: Path) -> tuple[list[str], list[str]]:
    """Put the configs where SGLang looks for them. The flags that name them, and what was taken for
    another."""
    target, draft = folder / "model", folder / "draft"
    argv, notes = [*question.argv, "--model-path", str(target)], list(question.notes)
    written = [(target, question.config)]
    named = value(merged(question.argv), *DRAFTS)
    if named is not None and not Path(named).exists():
        argv = [*without(argv, DRAFTS), DRAFT, str(draft)]
        written.append((draft, DRAFT_CONFIG))
        notes.append(
            f"the draft model {oneline(named, 100)} is not here: taken for a Llama of one layer"
        )
    for place, config in written:
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return argv, notes


def without(argv: Sequence[str], flags: Sequence[str]) -> list[str]:
    """A command line without some flags and their values. The first word is one of the flags, where
    it names the model."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prefix_chars="-")
    parser.add_argument(*flags, nargs="?")
    words = list(argv)
    if flags == MODEL and words and not words[0].startswith("-"):
        words = words[1:]
    return parser.parse_known_args(words)[1]
