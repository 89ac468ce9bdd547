"""A model as a scheduler would build it on the card, without its weights, so that its routers can
be read.

Seam: `sglang.srt.layers.moe.fused_moe_triton.layer.create_moe_dispatcher`, whose all-to-all
backends want a library of their own, which is not here."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch

from oea_server.absent.device import OnMeta


def build(server_args: Any) -> torch.nn.Module:
    """The model of SGLang's resolved arguments, its parameters shapes alone. Inside
    `ranks.alone`."""
    from sglang.srt.arg_groups.model_override_base import model_config_of
    from sglang.srt.configs.load_config import LoadConfig
    from sglang.srt.layers.moe.fused_moe_triton import layer
    from sglang.srt.layers.moe.token_dispatcher import StandardDispatcher
    from sglang.srt.model_loader import loader
    from sglang.srt.model_loader.utils import set_default_torch_dtype

    config = model_config_of(server_args)
    load = LoadConfig()
    quantization = loader._get_quantization_config(config, load)

    def unconnected(moe_runner_config: Any, *_: Any, **__: Any) -> Any:
        return StandardDispatcher(moe_runner_config)

    here = mock.patch.object(layer, "create_moe_dispatcher", unconnected)
    with OnMeta(), set_default_torch_dtype(config.dtype), torch.device("cuda"), here:
        model: torch.nn.Module = loader._initialize_model(config, load, quantization)
    return model
