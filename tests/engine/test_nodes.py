"""Two nodes serve together only if both route by the same: otherwise both end before they serve,
and say why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oea_server.client.server import Server
from tests.engine import nodes
from tests.engine.nodes import Node
from tests.servers import Servers

pytestmark = pytest.mark.server("own")

Refused = Callable[[Node, Node], tuple[list[str], list[str]]]


@pytest.fixture
def together(servers: Servers) -> Iterator[Callable[..., list[Server]]]:
    servers.stop()
    made: list[Server] = []

    def make(*each: Node) -> list[Server]:
        made.extend(nodes.two_nodes(*each))
        return made

    yield make
    nodes.stop(made)


@pytest.fixture
def refused(together: Callable[..., list[Server]]) -> Refused:
    """What both nodes say when neither comes up."""

    def launch(one: Node, other: Node) -> tuple[list[str], list[str]]:
        pair = together(one, other)
        assert nodes.start(pair) == [False, False]
        assert all(server.process is not None and server.process.returncode != 0 for server in pair)
        return nodes.said(pair[0]), nodes.said(pair[1])

    return launch


def variables(**knobs: object) -> dict[str, str]:
    return {f"OEA_{name.upper()}": str(value) for name, value in knobs.items()}


def last_steps(folder: Path) -> list[list[Any]]:
    """How each rank routed its last step, layer by layer."""
    files = sorted(folder.glob("*.jsonl"))
    return [json.loads(path.read_text().splitlines()[-1])["layers"] for path in files]


def test_nodes_that_agree_serve_and_change_together(
    together: Callable[..., list[Server]], tmp_path: Path
) -> None:
    recorded = {**variables(k0=3, min_batch=1), "RECORDER_FOLDER": str(tmp_path)}
    reports = variables(per_layer_metrics="true", allow_inactive="true")  # which may differ
    first, _ = pair = together(Node(recorded), Node({**recorded, **reports}))
    assert nodes.start(pair) == [True, True], first.tail()
    assert first.config()["ranks_agree"] is True

    def routed() -> list[str]:
        first.client.completions.create(model="demo", prompt="An expert is awake", max_tokens=4)
        one, other = last_steps(tmp_path)
        assert one == other
        return sorted({policy for _, policy, _ in one})

    assert routed() == ["oea 3"]
    first.steer(k0=2, policy="pruned")
    assert routed() == ["pruned 2"]
    first.steer(k0=5, policy="oea")
    assert routed() == ["oea 5"]
    assert (first.config()["version"], first.config()["ranks_agree"]) == (2, True)


def test_nodes_with_different_settings_are_refused(refused: Refused) -> None:
    """Unrefused they are healthy, and their text is garbage."""
    one, other = refused(Node(variables(k0=2)), Node(variables(policy="random")))
    assert one == other
    (line,) = one
    assert line.startswith("refusing to start: ranks differ: policy oea on rank 0 (node 0, ")
    assert ", random on rank 1 (node 1, " in line
    assert "; k0 2 on rank 0 (node 0, " in line
    assert ", auto on rank 1 (node 1, " in line


@pytest.mark.nightly
@pytest.mark.parametrize("without", [0, 1])
def test_a_node_without_our_plug_in_is_missed(refused: Refused, without: int) -> None:
    plain, ours = Node({"SGLANG_PLUGINS": "oea_cpu,oea_tests"}), Node(variables(k0=2))
    both = refused(*((plain, ours) if without == 0 else (ours, plain)))
    (line,) = both[1 - without]
    assert line.startswith(
        f"refusing to start: rank {without} (node {without}) did not answer in 40 s: "
    )
    assert both[without] == []


@pytest.mark.nightly
@pytest.mark.parametrize(
    "knobs",
    [
        {"p": 0.5, "k_max": 8, "max_rank": 9, "min_batch": 3},
        {"pool": "union", "rank_budget": 5, "seed": 7, "share": "16:0.13"},
    ],
)
def test_every_knob_is_named(refused: Refused, knobs: dict[str, object]) -> None:
    one, other = refused(Node(), Node(variables(**knobs)))
    assert one == other
    for name, value in knobs.items():
        assert f"{name} " in one[0]
        assert f", {value} on rank 1 (node 1, " in one[0]


@pytest.mark.nightly
def test_a_schedules_content_and_what_lies_below_are_named(
    refused: Refused, tmp_path: Path
) -> None:
    """The same path on both nodes would not do: what differs is what lies there."""
    for name, k0 in (("one", "1:8,4:3"), ("other", "1:8,4:2")):
        (tmp_path / name).write_text(json.dumps({"k0": k0, "k": 8}))
    path = [
        nodes.patched(tmp_path / "patched"),
        nodes.metadata(tmp_path / "sglang", "sglang", "0.5.18"),
    ]
    path.append(nodes.other_code(tmp_path / "code"))
    one, other = refused(
        Node(variables(schedule=tmp_path / "one")),
        Node(variables(schedule=tmp_path / "other"), path=path),
    )
    assert one == other
    assert "ranks differ: code " in one[0]
    assert ", 0.5.18 on rank 1 (node 1, " in one[0]
    assert "; seams hooks on rank 0 (node 0, " in one[0]
    assert ", patched on rank 1 (node 1, " in one[0]
    assert "; schedule 1:8,4:3 on rank 0 (node 0, " in one[0]
    assert ", 1:8,4:2 on rank 1 (node 1, " in one[0]


@pytest.mark.nightly
def test_another_version_is_named(refused: Refused, tmp_path: Path) -> None:
    path = [nodes.metadata(tmp_path, "oea-server", "0.0.9")]
    one, other = refused(Node(), Node(variables(k0=2), path=path))
    assert one == other
    assert ", 0.0.9 on rank 1 (node 1, " in one[0]
    assert "k0" not in one[0]


@pytest.mark.nightly
def test_other_layers_are_named(refused: Refused) -> None:
    override = json.dumps({"num_experts_per_tok": 6, "num_hidden_layers": 3})
    one, other = refused(
        Node(variables(k0=2)), Node(variables(k0=2), ["--json-model-override-args", override])
    )
    assert one == other
    assert "ranks differ: layer 0 top-8 renormalized on rank 0 (node 0, " in one[0]
    assert ", top-6 renormalized on rank 1 (node 1, " in one[0]
    assert ", none on rank 1 (node 1, " in one[0]
