"""The server that `bench serve` measures: one that runs already, or one of our own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import requests

from oea_server.client import key
from oea_server.client.ask import ask
from oea_server.client.remote import Remote
from oea_server.client.server import Server
from oea_server.lab.demo.build import build, default_directory, qwen3_30b
from oea_server.lab.records.options import OptionError

BYTES_PER_WEIGHT = 2
"""bfloat16."""


class Model(NamedTuple):
    """What of a model says how many bytes an expert of a layer has."""

    model: str
    layers: int
    bytes_per_expert: int


def model_of(name: str, config: Mapping[str, Any]) -> Model:
    """From a Hugging Face config of the Qwen3-MoE family, bfloat16."""
    size = 3 * config["hidden_size"] * config["moe_intermediate_size"] * BYTES_PER_WEIGHT
    return Model(name, config["num_hidden_layers"], size)


@contextmanager
def own_server(layers: int, chats: int, *more: str) -> Iterator[tuple[Server, Model]]:
    """A server with Qwen3-30B-shaped layers and random weights, made once and kept in the user's
    cache.

    Args:
        more: flags of the server.
    """
    config, name = qwen3_30b(layers), f"qwen3-30b-{layers}-layers"
    print(
        f"making {name} with random weights ({1.2 * layers:.1f} GB), unless it is there", flush=True
    )
    path = build(default_directory(name), config)
    print("starting SGLang (1 to 2 minutes, mostly imports)", flush=True)
    flags = ("--max-running-requests", str(chats), "--max-total-tokens", "65536", *more)
    with Server("--model-path", str(path), *flags) as server:
        yield server, model_of(name, config)


def attach(url: str) -> tuple[Remote, Model]:
    """A server that runs, and its model's config, which has to be on this machine.

    Raises:
        OptionError: nothing answers there, it is not ours, or its model's config cannot be read.
    """
    try:
        server = Remote(url.rstrip("/"), key.find(None, None, os.environ))
        server.config()
        path = str(
            ask("GET", f"{server.url}/model_info", server.key, timeout=30).json()["model_path"]
        )
    except (requests.RequestException, KeyError) as error:
        raise OptionError(
            f"--url={url}: no oea-server answers there: {type(error).__name__}"
        ) from None
    except ValueError as error:  # of the key, or of the way
        raise OptionError(str(error)) from None
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(path)
        return server, model_of(Path(path).name, config)
    except (OSError, KeyError) as error:
        raise OptionError(
            f"--url={url}: the config of its model {Path(path).name} cannot be read: {error}"
        ) from None
