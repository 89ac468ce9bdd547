"""Which test runs which command, and what it puts in place of what.

A command of a document is on one of these lines, or its document marks it as not run. What is put
in is printed by the test that runs it: another port, a smaller size, a file that is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from oea_server_demo import HELD_OUT, MODEL

from oea_server.lab.recipes.commands import CONFIGS
from tests.documents import pages
from tests.documents.pages import ROOT, Command

RESULTS = ROOT / "benchmarks/results/2-core-x86_64"
Puts = tuple[tuple[str, str], ...]


class Way(NamedTuple):
    """How commands are run whose whole text is like `pattern`, a regular expression."""

    pattern: str
    by: str
    """HERE, TOGETHER, JUDGED, CI, a kind of server, or a test as FILE::NAME."""
    puts: Puts = ()
    """What is put in place of what; in place of nothing means at the end."""
    says: str = ""
    """A regular expression that the output holds."""
    holds: str = ""
    """Of a named test: a piece of the command that the test's file holds as well."""


HERE = "here"
"""tests/documents/test_run.py, in a shell, in a folder that looks like a checkout."""
NIGHTLY = "nightly"
"""The same, and a server is started: only in the nightly run."""
TOGETHER = "together"
"""The same in one process, which imports torch once: tests/documents/together.py."""
JUDGED = "judged"
"""`doctor --on CARD`, asked in tests/engine/test_doctor_elsewhere.py."""
CI = "ci"
"""`.ci/run`, or a part of what it runs."""
K3, KEYED, TWO_RANKS = "k3", "oea", "k3-ep2"
"""Kinds of tests/servers.py: tests/documents/test_served.py."""
DRAFTS = "drafts"
"""The server of tests/engine/test_serve_speculation.py; in the nightly run."""
CONTROLLED = "controlled"
"""The server of tests/engine/test_serve_controller.py, which is nightly."""
SERVED = (K3, KEYED, TWO_RANKS, DRAFTS, CONTROLLED)

SMALL: Puts = (("DIR", str(MODEL)), ("FILE", str(HELD_OUT)))
TINY = ("", "--batch 2 --sequences 2 --length 3 --out eval")
CUT = ("", "--batch 2 --sequences 64 --length 2 --out found")
FEW = ("", "--pairs 2 --chats 2 --requests 2 --tenant 'ab output=fixed:8' --out ab")
FEW_CHATS = "--chats 2 --tokens 8 --rounds 1"
GENTLE: Puts = (
    ("-u 16 -r 16 -t 60s", "-u 2 -r 2 -t 60s --requests 4"),
    ("--ttft-p95 2.0 --tpot-p95 0.2", "--ttft-p95 60 --tpot-p95 60"),
)
LINE = ("moe-….json", str(RESULTS / "moe-demo.json"))
RECORDS: Puts = tuple(
    (f"{name}.json", str(RESULTS / f"{file}.json"))
    for name, file in (("EVAL", "eval"), ("RULES", "eval-rules"), ("DOCUMENT", "eval-document"))
)
LARGE: Puts = (
    ("config.json", str(CONFIGS / "qwen3-235b-a22b.json")),
    ("FILE", str(CONFIGS / "qwen3-235b-a22b.json")),
    ("CARD", "h200"),
    ("FLAGS", "--tp 8"),
)
VANILLA = r"routing is the model's own: the policy is vanilla"
CHAT = r'"object": ?"chat.completion"'

WAYS = (
    # what CI runs
    Way(r"make (setup|check|system|test|test-\w+)", CI),
    Way(
        r"\.venv/bin/pytest \S.* -k (new_weights|\"diffusion or .*\")",
        "tests/unit/test_examples.py::test_examples_of_the_engine_pass_their_tests",
        holds="diffusion or table or spelling",
    ),
    Way(r"\.venv/bin/pytest \S.*", CI),
    # the first minutes
    Way("make demo", NIGHTLY, (("make demo", f"oea-server demo {FEW_CHATS}"),), "vanilla"),
    Way(
        r"\.venv/bin/oea-server serve( &)?",
        "tests/deploy/test_cpu_demo.py::test_it_answers_and_routes",
        holds="serve",
    ),
    Way(r"curl \S+/v1/chat/completions .*", K3, (("qwen3-235b-a22b-fp8", "demo"),), CHAT),
    Way(r"curl -s \S+/metrics \| grep \^oea_", K3, says="^oea_unique_experts_count"),
    Way(r"curl -s \S+/metrics \| grep \w+", K3, says="seconds_(count|bucket)"),
    Way(r"oea-server doctor --on \w+( --model-config .*)?", JUDGED, LARGE),
    # knobs
    Way(r"oea-server config set pool=.*", TWO_RANKS, says="routing is OEA's"),
    Way(r"oea-server config set draft_k0=2", DRAFTS, says="draft_k0: none -> 2"),
    Way(r"oea-server config set policy=vanilla", K3, says=VANILLA),
    Way(r'oea-server config set "tiers=.*"', K3, says="tiers: none -> gold: exact; bronze: auto"),
    Way(r"oea-server config set [a-z].*", K3, says="routing is OEA's"),
    Way("oea-server config knobs", K3, says=r"^k0\b"),
    Way("oea-server config get", K3, says='"k0": "3"'),
    Way(r"OEA_ADMIN_KEY_FILE=admin-key oea-server config set .*", KEYED, says=VANILLA),
    Way(r"curl .*-X PUT \S+/oea/config .*", K3, says='"policy": ?"vanilla"'),
    Way(r"curl (-m 30 )?\$SERVER/health\w*", K3),
    Way(r"curl \S+/oea/controller", CONTROLLED, says='"rung"'),
    Way(r"curl -X PUT \S+/oea/controller .*", CONTROLLED, says='"mode": ?"off"'),
    Way("umask 077; openssl rand -hex 32 > admin-key", HERE),
    # load
    Way(r"\.venv/bin/locust -f loadtest/locustfile\.py --headless .*", K3, GENTLE, "Aggregated"),
    Way(r"\.venv/bin/python -m loadtest ab --url .*", K3, (FEW,), "kept: ab/"),
    Way(
        r"oea-server bench serve --url .* --speculative .*",
        DRAFTS,
        (("--batch 4,16", "--batch 2 --tokens 8 --repeats 3 --out bench"),),
        "kept: ",
    ),
    Way(
        r"\.venv/bin/oea-server bench serve --url .* --batch 16 .*",
        "tests/engine/test_bench_serve.py::test_a_running_server_is_measured_and_left_as_it_was",
        holds="--url",
    ),
    Way(
        r"python benchmarks/kernel_cost\.py",
        "tests/ptx/test_cost.py::test_executes_at_most_so_much_of_sglangs",
        holds="kernel_cost",
    ),
    Way(
        "python -m benchmarks",
        "tests/unit/test_results.py::test_the_command_makes_all_of_a_folder_of_records",
        holds="python -m benchmarks",
    ),
    # quality
    Way(r"oea-server eval( --model DIR .*)?", TOGETHER, (*SMALL, TINY), "kept: "),
    Way(
        "oea-server eval --gate",
        "tests/unit/quality/test_gate.py::test_it_is_open",
        holds="gate",
    ),
    Way(r"oea-server calibrate --model-path .*", TOGETHER, (*SMALL, LINE, CUT), "kept: "),
    Way(r"oea-server calibrate \S+\.json .*", TOGETHER, RECORDS, "--oea-schedule schedule.json"),
    Way(
        r"python -m oea_server\.lab\.quality\.findings .*",
        HERE,
        RECORDS,
        "OEA loses less than pruning",
    ),
    # answers
    Way(
        r"\S*python -m oea_server\.lab\.qualify\.own_tasks (--model demo )?--number 400 .*",
        HERE,
        says="400 tasks",
    ),
    Way(
        r"oea-server qualify --url .*",
        K3,
        (("DIR", "qualified"), ("", "--completions --rounds 2")),
        "margin",
    ),
    Way(
        r"python benchmarks/harnesses\.py --url URL",
        "tests/engine/test_two_harnesses.py::test_two_harnesses_agree_on_vanilla_and_on_one_expert",
        holds="--url",
    ),
    # pages and files that are made
    Way(
        r"\S*python -m oea_server\.lab\.reference",
        "tests/unit/test_reference.py::test_a_list_is_what_its_definitions_say",
        holds="oea_server.lab.reference",
    ),
    Way(
        r"\S*python -m oea_server\.lab\.recipes",
        "tests/engine/test_coverage_page.py::test_a_sample_of_its_answers_are_todays",
        holds="oea_server.lab.recipes",
    ),
    Way(
        r"\S*python -m deploy\.grafana",
        "tests/deploy/test_static.py::test_the_dashboard_is_what_its_code_makes",
        holds="deploy.grafana",
    ),
    Way(
        r"\S*python -m deploy\.k8s",
        "tests/deploy/test_k8s_sizing.py::test_the_rules_are_what_their_files_say",
        holds="deploy.k8s",
    ),
    # deployment
    Way(
        "deploy/compose/secrets.sh",
        "tests/deploy/test_compose.py::TestSecrets",
        holds="secrets.sh",
    ),
    Way("grep -rn '# edit:' deploy/k8s", HERE, says="edit:"),
    Way(
        r"cd deploy/prometheus && prometheus --config\.file=prometheus\.yml",
        HERE,
        (("prometheus --config.file=", "promtool check config "),),
        "SUCCESS",
    ),
    # development
    Way(r"\.venv/bin/pre-commit install", HERE, says="pre-commit installed"),
    Way(
        r"git apply (-R )?-C1.*",
        "tests/unit/test_examples.py::test_an_example_of_the_engine_applies",
        holds="-C1",
    ),
    Way(
        r"\S*python -m oea_server\.lab\.releases verify",
        "tests/unit/test_releases.py::test_every_series_against_its_wheel",
        holds="oea_server.lab.releases",
    ),
    Way(
        r"\S*python -m oea_server\.lab\.releases diff .*",
        "tests/unit/test_releases.py::test_what_changed_is_told_by_symbol",
        holds="oea_server.lab.releases",
    ),
    Way(
        r"\S*python -m oea_server\.lab\.releases make .*",
        "tests/unit/test_releases.py::test_a_series_is_made_from_the_one_before",
        holds="oea_server.lab.releases",
    ),
    Way(
        r"oea-server patch (check|apply|revert)",
        "tests/unit/test_patching.py::test_the_command",
        holds="check",
    ),
)


@cache
def every() -> tuple[Command, ...]:
    """All commands of all documents."""
    return tuple(command for page in pages.pages() for command in pages.commands(page))


def way(command: Command) -> Way | None:
    """The first line of the ledger that is like a command."""
    return next((each for each in WAYS if re.fullmatch(each.pattern, command.text)), None)


def run_by(*by: str) -> Iterator[tuple[Command, Way]]:
    """What one test runs: each text once, with the place of its first."""
    seen = set()
    for command in every():
        found = way(command)
        if found is not None and found.by in by and command.reason is None:
            if command.text not in seen:
                yield command, found
            seen.add(command.text)


def put(text: str, puts: Puts) -> str:
    """A command as it is run. What is not in it is not put in place of anything."""
    for what, instead in puts:
        text = text.replace(what, instead) if what else f"{text} {instead}"
    return text
