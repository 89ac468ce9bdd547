"""The served evaluation measures what a model says, not what it was made to say it with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oea_server_demo import HELD_OUT, MODEL
from torch.nn import functional as F

from oea_server.lab.quality import served, text
from oea_server.lab.quality.evaluation import load
from tests.servers import K, Servers


@pytest.mark.server("oea")
def test_a_live_servers_loss_is_the_models_own(servers: Servers) -> None:
    server = servers.get("oea")
    network, tokenizer = load(str(MODEL), torch.device("cpu"))
    ids = text.load(HELD_OUT, tokenizer, 24, 4, "mixed", 0).ids
    with torch.inference_mode():
        logits = network(ids[:, :-1]).logits
    nats = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(4, -1)
    try:
        vanilla = served.measure(server, ids, 4, {"policy": "vanilla"})
        pruned = served.measure(server, ids, 4, {"policy": "pruned", "k0": "1"})
    finally:
        server.steer(policy="oea", k0="auto")
    # the first token is prefill's
    np.testing.assert_allclose(vanilla.loss, nats[:, 1:].mean(dim=1), atol=1e-3)
    assert vanilla.kept == pytest.approx(1.0, abs=1e-4)
    assert np.mean(pruned.loss) > np.mean(vanilla.loss) + 0.05
    assert pruned.unique <= pruned.batch < vanilla.unique <= K * vanilla.batch
