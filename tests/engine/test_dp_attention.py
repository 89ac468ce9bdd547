"""DP attention gathers the rows of all ranks for the experts: where no table refuses it, the guard ends it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from oea_server_demo import MODEL

from oea_server.client.server import SGLANG, Server
from tests.servers import COMMON, Servers

SHIMS = Path(__file__).parents[1] / "dp_attention"


@pytest.mark.server("own")
def test_what_slips_through_the_table_is_ended_before_it_answers(servers: Servers) -> None:
    """Unguarded it comes up, says "router active", and answers garbage. Its first decode step is its warm-up's."""
    servers.stop()
    server = Server(
        *("--model-path", str(MODEL), "--served-model-name", "demo", *COMMON),
        *("--tp", "2", "--dp", "2", "--enable-dp-attention"),
        # SGLang counts its ports from here; from the server's own, others may be in the way
        *("--dist-init-addr", f"127.0.0.1:{20_000 + os.getpid() % 8_000}"),
        environment={
            "OEA_K0": "7",
            "OEA_MIN_BATCH": "1",
            "PYTHONPATH": os.pathsep.join([str(SHIMS), os.environ.get("PYTHONPATH", "")]),
        },
        command=SGLANG,
    )
    try:
        with pytest.raises(RuntimeError, match="did not start"):
            server.start()
    finally:
        server.stop()
    log = server.log.read_text(errors="replace")
    assert "router active" in log, server.tail()  # the table let it through
    said = set(re.findall(r"^oea-server: (.*)$", log, re.MULTILINE))
    assert said
    whose = (
        r"ending: a decode step of 1 requests is part of a batch of [12] rows, those of other ranks \(([01], [01])\)"
    )
    assert all(re.match(whose, line) for line in said), said
