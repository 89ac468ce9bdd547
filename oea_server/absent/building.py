"""A model as a scheduler would build it on the card, without its weights: what its routers are decides."""

from __future__ import annotations

from typing import Any

import torch

from oea_server.absent.device import OnMeta


def build(server_args: Any) -> torch.nn.Module:
    """The model of SGLang's resolved arguments, its parameters shapes alone. Inside `ranks.alone`."""
    from sglang.srt.arg_groups.model_override_base import model_config_of
    from sglang.srt.configs.load_config import LoadConfig
    from sglang.srt.model_loader import loader
    from sglang.srt.model_loader.utils import set_default_torch_dtype

    config = model_config_of(server_args)
    load = LoadConfig()
    quantization = loader._get_quantization_config(config, load)
    with OnMeta(), set_default_torch_dtype(config.dtype), torch.device("cuda"):
        model: torch.nn.Module = loader._initialize_model(config, load, quantization)
    return model
