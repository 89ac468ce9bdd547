"""Every panel and every alert has data, from a real server under load through a real Prometheus."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import requests

from oea_server.client.server import Server
from tests.deploy.names import DASHBOARD, alerts, panel_expressions, rules
from tests.deploy.scraping import Prometheus, prometheus
from tests.servers import Servers, on

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="needs Prometheus: apt-get install prometheus (make system)",
)

CHATS, SECONDS = 6, 40
RANKS = {"oea_max_rank_unique_experts", "oea_vanilla_max_rank_unique_experts"}
"""What a server without expert parallelism does not have."""
UNASKED = ("oea_controller_", "oea_tier_")
"""What a server without a target for the time per token, and without tiers, does not have."""


@dataclass(frozen=True)
class Scraped:
    kind: str
    server: Server
    ours: Prometheus
    theirs: Prometheus
    """An operator's own, without our relabelling."""

    def has(self, expression: str) -> bool:
        """Whether this kind of server has the metrics that an expression reads."""
        if any(name in expression for name in UNASKED):
            return False
        return self.kind == "k3-ep2" or not any(name in expression for name in RANKS)


def chat(server: Server, stop: threading.Event) -> None:
    while not stop.is_set():
        stream = server.client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": "go on"}],
            max_tokens=24,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        for _ in stream:
            pass


@pytest.fixture(scope="module", params=[on("oea"), on("k3-ep2")])
def scraped(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scraped]:
    server = servers.get(request.param)
    with ExitStack() as stack:
        ours, theirs = (
            stack.enter_context(
                prometheus(tmp_path_factory.mktemp("prometheus"), server.port, relabel)
            )
            for relabel in (True, False)
        )
        stop = threading.Event()
        chats = [threading.Thread(target=chat, args=(server, stop)) for _ in range(CHATS)]
        for each in chats:
            each.start()
        try:
            for policy in ("shadow", "oea"):
                server.steer(policy=policy)
                time.sleep(SECONDS / 2)
            yield Scraped(request.param, server, ours, theirs)
        finally:
            stop.set()
            for each in chats:
                each.join()


def substituted(expression: str, seen: Prometheus) -> str:
    """With the dashboard's variables as Grafana would fill them in."""
    values = {"window": "1m"}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
            assert query is not None
            found = seen.label_values(fill(query[1], values), query[2])
            assert found, variable["query"]
            values[variable["name"]] = "|".join(map(re.escape, found))
    return fill(expression, values)


def fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda name: values[name[1]].replace("\\", "\\\\"), text)


SOMETIMES = r"unless on \(namespace, pod\) oea_router_limits\{[^}]*\} == 1"
"""A series that is there only while its reason holds."""
JOIN = r"\b(?:and|unless) on \(namespace, pod\)"


def asked(expression: str) -> str:
    """An alert's condition as a question that has an answer, 0 or 1, wherever all of its series
    exist and join."""
    always = re.sub(SOMETIMES, "", re.sub(r"#.*", "", expression))
    joined = re.sub(JOIN, "and on (namespace, pod)", always)
    return re.sub(r"(==|>=|<=|>|<)\s*(?=[\d(])", r"\1 bool ", joined)


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_every_panel_has_data(scraped: Scraped, whose: str) -> None:
    seen = getattr(scraped, whose)
    empty = [
        (title, expression)
        for title, expression in panel_expressions()
        if not seen.query(substituted(expression, seen)) and scraped.has(expression)
    ]
    assert not empty


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_every_rule_and_every_condition_of_an_alert_has_data(scraped: Scraped, whose: str) -> None:
    seen = getattr(scraped, whose)
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    questions = [asked(alert["expr"]) for alert in alerts()]
    assert not [
        name for name in (*recorded, *questions) if not seen.query(name) and scraped.has(name)
    ]


def test_no_alert_fires_on_a_healthy_server(scraped: Scraped) -> None:
    raised = {
        alert["metric"]["alertname"]
        for alert in scraped.ours.query('ALERTS{alertstate=~"pending|firing"}')
    }
    # a CPU's decode step takes longer than the promise of deploy/prometheus/rules/slo.yml, made for
    # GPUs
    assert {name for name in raised if "TokenBudget" not in name} == set()


def test_the_panels_show_what_the_server_says(scraped: Scraped) -> None:
    experts = scraped.ours.query('sum(oea_unique_experts_sum{pod="oea-server-0"})')[0]["value"][1]
    assert 0 < float(experts) <= scraped.server.metrics()["oea_unique_experts_sum"]


def test_the_changes_are_marked(scraped: Scraped) -> None:
    (annotation,) = DASHBOARD["annotations"]["list"]
    assert scraped.ours.query(substituted(annotation["expr"], scraped.ours))


def test_our_metrics_are_to_promtools_taste(scraped: Scraped) -> None:
    text = requests.get(f"{scraped.server.url}/metrics", timeout=30).text
    ours = [line for line in text.splitlines() if re.match(r"(# (HELP|TYPE) )?oea_", line)]
    assert len(ours) > 100
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input="\n".join(ours) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
