"""Pools that know the ranks, on two of them, switched live; and under EPLB, which moves and copies
experts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from oea_server.client.server import Server
from tests.engine.recount import Together, record_together
from tests.servers import LAYERS, K, Servers
from tests.transcript import PROMPTS, generate

on_two_ranks = pytest.mark.server("k3-ep2")

KEPT = {"policy": "oea", "k0": "3", "min_batch": 1, "pool": "union", "rank_budget": None}
"""What the server was started with."""


def busiest(layers: list[set[int]]) -> list[int]:
    """Of two ranks with 64 experts each, by layer and step."""
    return [max(sum(expert // 64 == rank for expert in each) for rank in (0, 1)) for each in layers]


def floors(together: Together, k0: int) -> list[set[int]]:
    """What tokens are guaranteed: their first choices come first in the replay."""
    steps, layers, *_ = together.experts.shape
    return [set(ids) for ids in together.experts[..., :k0].reshape(steps * layers, -1).tolist()]


def under(server: Server, **knobs: object) -> Together:
    """Seven prompts in step under other knobs."""
    server.steer(**knobs)
    try:
        return record_together(server, LAYERS, K, health_checks=0)
    finally:
        server.steer(**KEPT)


@pytest.mark.server("plain", "eplb-ep2")
def test_eplb_moves_experts_under_load_and_nothing_breaks(servers: Servers) -> None:
    plain = servers.transcript("plain").generations[0]
    server = servers.get("eplb-ep2")

    def chat(i: int) -> int:
        reply = server.client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": f"{i}: what is a mutex?"}],
            max_tokens=100,
            extra_body={"ignore_eos": True},
        )
        assert reply.usage is not None
        return reply.usage.completion_tokens

    before = server.settled_metrics()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(chat, range(8))) == [100] * 8
    gained = {name: value - before.get(name, 0) for name, value in server.settled_metrics().items()}
    assert server.log.read_text().count("[EPLBManager] rebalance end") >= 4  # two ranks
    # fill: of all that was read the busiest rank read about half, and less than it would have under
    # vanilla
    assert gained["oea_unique_experts_sum"] <= 2 * gained["oea_max_rank_unique_experts_sum"]
    assert gained["oea_max_rank_unique_experts_sum"] <= 0.55 * gained["oea_unique_experts_sum"]
    assert (
        gained["oea_max_rank_unique_experts_sum"]
        < gained["oea_vanilla_max_rank_unique_experts_sum"]
    )
    # a pool with room for all that tokens want is vanilla's choice, through our map of copies: were
    # a copy missing or read twice, the log-probabilities would be far apart
    server.steer(k0="7", pool="budget", rank_budget=128, min_batch=1)
    routed = generate(server, PROMPTS[0])
    assert routed.ids == plain.ids
    np.testing.assert_allclose(routed.logprobs, plain.logprobs, atol=2e-3)


@on_two_ranks
def test_fill_takes_the_room_beside_the_busiest_rank_and_no_more(servers: Servers) -> None:
    together = under(servers.get("k3-ep2"), pool="fill")
    read, guaranteed = together.layers, floors(together, 3)
    assert busiest(read) == busiest(guaranteed)
    assert sum(map(len, read)) > sum(map(len, guaranteed))
    gained = together.gained
    assert gained["oea_max_rank_unique_experts_sum"] == sum(busiest(read))
    assert gained["oea_unique_experts_sum"] == sum(map(len, read))
    assert (
        gained["oea_vanilla_max_rank_unique_experts_sum"]
        > gained["oea_max_rank_unique_experts_sum"]
    )


@on_two_ranks
def test_a_budget_is_exceeded_by_floors_only(servers: Servers) -> None:
    together = under(servers.get("k3-ep2"), pool="budget", rank_budget=6, k0="1")
    read, guaranteed = busiest(together.layers), busiest(floors(together, 1))
    assert all(here <= max(6, there) for here, there in zip(read, guaranteed, strict=True))
    assert max(read) >= 6
    assert together.gained["oea_max_rank_unique_experts_sum"] == sum(read)


@on_two_ranks
def test_the_page_has_both_ranks_counterfactual(servers: Servers) -> None:
    total = servers.get("k3-ep2").stats()["total"]
    assert 1 <= total["busiest_rank"] < total["vanilla_busiest_rank"] <= 64
    assert 1 <= total["rank_spread"] < 2
    assert 1 <= total["vanilla_rank_spread"] < 2
