"""`oea-server doctor --on CARD`: would these flags be routed on that card? Answered on any
machine."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from oea_server.absent import question


def examine(argv: Sequence[str]) -> bool:
    """Print what `doctor --on` found, and whether the model would be routed.

    Raises:
        SettingsError: the question is none, in one line.
    """
    asked = question.read(argv)
    console = Console(highlight=False, soft_wrap=True)
    with console.status("importing SGLang"):
        from oea_server.absent import device

        device.pretend(asked.card)
        from oea_server.absent.judgement import ONLY_THERE, answer

        found = answer(asked)
    card = asked.card
    console.print(
        f"[bold]card[/]      {card.name} (sm{card.sm}, {card.memory} MiB), which need not be here"
    )
    console.print(f"[bold]model[/]     {escape(asked.model)}")
    if found.resolved:
        shown = ", ".join(f"{name} {value}" for name, value in found.resolved.items())
        console.print(f"[bold]resolved[/]  {escape(shown)}")
    if found.rule:
        console.print(f"[bold]router[/]    {escape(found.rule)}")
    for note in found.notes:
        console.print(f"[bold]note[/]      {escape(note)}")
    console.print(f"[bold]there[/]     only known there: {'; '.join(ONLY_THERE)}")
    for problem in found.problems:
        console.print(f"[red]✗[/] {escape(problem)}")
    if found.problems:
        console.print("[red]refused there[/]")
    else:
        console.print(
            f"[green]✓[/] {escape(found.said)}"
            if found.works
            else f"[yellow]{escape(found.said)}[/]"
        )
    return found.works
