"""`docs/coverage.md`: what is routed today, by family and by command."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from oea_server.lab.recipes import commands
from oea_server.lab.recipes.asking import Said
from oea_server.lab.recipes.commands import Command

BEHIND = {
    "served": "served",
    "run": "run",
    "built": "built",
    "resolved": "–",
}
INTRODUCTION = """# What is routed today

Generated: `python -m oea_server.lab.recipes`. Each answer is that of
`oea-server doctor --on CARD --model-config FILE FLAGS`. SGLang {sglang} resolves the flags as if
the card were here, and builds the model's own class. The code that judges for `serve` then judges
the result. Nothing here was run on these cards.

| answer | meaning |
| --- | --- |
| **routed** | the policy routes all MoE layers |
| **n of m layers** | the policy routes n layers; the others run the model's own top k |
| refused | `serve` would not start; the cell names the option, or what the model does |

The column *tested* says what else was tested of a family's router:

| tested | meaning |
| --- | --- |
| served | our tests serve a model of this class end to end, on a CPU |
| run | SGLang's own model runner decodes a tiny model, in a nightly test on a CPU |
| built | our tests build the class, small, and ask what its routers are |
| – | nothing but this page |

The tiny model of a *run* has the class's layers of experts. Our vanilla has to equal SGLang without
our plug-in, to the bit. OEA's counts have to equal a recount. Of the 31 models 26 do the same on
two ranks. Some models run [in part](#run-on-a-cpu-in-part), and some families
[not at all](#not-run-on-a-cpu).

Of {commands} commands {works} are routed.
Of the {recipes} public recipes among them {recipes_work} are routed.
Of {families} families, {by_card}.
"""


def render(found: Mapping[Command, Said]) -> str:
    """The whole page, from the answers to all commands and families."""
    listed, families = commands.recipes() + commands.cookbook(), commands.families()
    recipes = commands.recipes()
    by_card = ", ".join(
        f"{sum(found[each]['works'] for each in families if each.hardware == card)} on {card}"
        for card in commands.PLATFORMS
    )
    parts = [
        INTRODUCTION.format(
            sglang=version("sglang"),
            commands=len(listed),
            works=sum(found[each]["works"] for each in listed),
            recipes=sum(each.stands_for for each in recipes),
            recipes_work=sum(each.stands_for for each in recipes if found[each]["works"]),
            families=len(families) // len(commands.PLATFORMS),
            by_card=by_card,
        ),
        "## Families\n",
        *table(["family", "flags", *commands.PLATFORMS, "tested"], family_rows(found)),
    ]
    for title, some in (
        ("SGLang's cookbook and documentation", commands.cookbook()),
        ("InferenceX", recipes),
    ):
        rows = [
            command_row(each, found[each])
            for each in sorted(some, key=lambda each: (each.hardware, each.model))
        ]
        parts += [
            f"\n## {title}\n",
            *table(["card", "model", "flags", "recipes", "answer", "tested"], rows),
        ]
    in_part = [
        [each["family"], each["without"] or "–", each["instead"] or "–"]
        for each in commands.run_in_part()
    ]
    parts += [
        "\n## Run on a CPU in part\n",
        *table(["family", "without", "in plain torch, by the test"], in_part),
    ]
    stopped = [[each["family"], each["because"]] for each in commands.not_run()]
    parts += ["\n## Not run on a CPU\n", *table(["family", "because"], stopped)]
    return "\n".join([*parts, f"\n<!-- inputs {commands.digest()} -->", ""])


def family_rows(found: Mapping[Command, Said]) -> list[list[str]]:
    rows: dict[str, list[str]] = {}
    for each in commands.families():
        row = rows.setdefault(each.family, [each.family, code(each.argv)])
        row.append(short(found[each]))
    behind = {each.family: BEHIND[commands.evidence(each.model)] for each in commands.families()}
    return [[*row, behind[family]] for family, row in rows.items()]


def command_row(command: Command, said: Said) -> list[str]:
    behind = BEHIND[commands.evidence(command.model)]
    stands_for = str(command.stands_for)
    return [command.hardware, command.model, code(command.argv), stands_for, short(said), behind]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [line(heads), line(["---"] * len(heads)), *(line(row) for row in rows)]


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def short(said: Said) -> str:
    """An answer in a cell: of each reason what it is about."""
    if said["problems"]:
        return "refused: " + "; ".join(dict.fromkeys(map(reason, said["problems"])))
    if said["vanilla"]:
        return f"nothing: {said['vanilla']}"
    if said["routed"] < said["layers"]:
        return f"**{said['routed']} of {said['layers']} layers**"
    return "**routed**"


def reason(problem: str) -> str:
    """What a problem is about: the option, or how the model routes."""
    if problem.startswith("--"):
        return code(problem.split(": ", maxsplit=1)[0])
    problem = problem.split("; --oea-allow-inactive", maxsplit=1)[0]
    problem = re.sub(r"^(?:the model|\w+) (?=routes|brings|chooses|puts|runs|builds)", "", problem)
    return problem.replace(", which is not supported yet", "")[:160]
