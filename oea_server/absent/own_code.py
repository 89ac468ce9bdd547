"""Configs of a `model_type` that neither transformers nor SGLang knows (Ling): a checkpoint's own
code reads them.

That code is not run here, and is not in the file. Its class holds what the file says; what it would
default is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TRUST = "--trust-remote-code"
UNKNOWN = "does not recognize this architecture"
"""Of the error by which transformers says that it has no class for a `model_type`."""


class NotTrustedError(Exception):
    """SGLang would not load the config."""


def read(folder: str, config: Mapping[str, Any], argv: Sequence[str]) -> list[str]:
    """Have transformers read a config as its own code would. What was taken for something else, in
    words.

    Args:
        folder: where the config lies as config.json.
        argv: the command line, which has to allow it.

    Raises:
        NotTrustedError: it does not.
    """
    kind = str(config.get("model_type"))
    if not is_unknown(folder, kind):
        return []
    if TRUST not in argv:
        raise NotTrustedError(f"{kind} is a model whose config its own code reads: add {TRUST}")
    from transformers import AutoConfig, PretrainedConfig

    plain = type("PlainConfig", (PretrainedConfig,), {"model_type": kind, "oea_plain": True})
    AutoConfig.register(kind, plain, exist_ok=True)
    return [
        f"{kind} is read as its file says: the model's own code, which would do so there, is not"
        " here"
    ]


def is_unknown(folder: str, kind: str) -> bool:
    """Whether SGLang has no way to read the config but its own code."""
    from sglang.srt.utils.hf_transformers_utils import get_config
    from transformers import CONFIG_MAPPING

    if kind in CONFIG_MAPPING:  # SGLang registers its own there
        return hasattr(CONFIG_MAPPING[kind], "oea_plain")
    try:
        get_config(folder, trust_remote_code=False)
    except Exception as error:  # another is said in SGLang's words when its arguments are resolved
        return UNKNOWN in str(error)
    return False
