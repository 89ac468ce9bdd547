"""What is asked, by whom, in what order: all of it follows from a seed, a tenant and two
numbers."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loadtest import lengths, words
from loadtest.lengths import LengthError, Lengths

PARTS = "weight=3 prompt=lognormal:200:0.8 output=fixed:64 turns=4 prefix=256 cancel=0.1 key=SECRET"
BODY: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True, slots=True)
class Tenant:
    """Users of one kind.

    Args:
        weight: its share of users, or of arrivals, against other tenants.
        turns: questions of one conversation, each sent with all that was said before.
        prefix: tokens of a system message that all of its conversations share; 0 for none.
        cancel: share of requests that are abandoned part of the way.
        key: sent as `Authorization: Bearer`.
    """

    name: str
    weight: float = 1.0
    prompt: Lengths = field(default_factory=lambda: lengths.Fixed(32))
    output: Lengths = field(default_factory=lambda: lengths.Fixed(64))
    turns: int = 1
    prefix: int = 0
    cancel: float = 0.0
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Args:
        cancel_after: chunks of text after which its client goes away; None if it stays.
        exact: whether it wishes to be routed as the model was trained.
    """

    messages: tuple[dict[str, str], ...]
    tokens: int
    seed: int
    cancel_after: int | None = None
    exact: bool = False

    def body(self, model: str, temperature: float = 1.0, **extra: Any) -> dict[str, Any]:
        """What the official client sends, with `ignore_eos`, SGLang's own field, for answers of
        exact lengths."""
        return {
            "model": model,
            "messages": list(self.messages),
            "max_tokens": self.tokens,
            "temperature": temperature,
            "seed": self.seed,
            "ignore_eos": True,
            **BODY,
            **({"custom_params": {"oea": {"exact": True}}} if self.exact else {}),
            **extra,
        }


def parse(text: str) -> Tenant:
    """``chat weight=3 prompt=sharegpt output=fixed:64``: a name, then parts of it, with blanks
    between.

    Raises:
        LengthError: a part is not known or out of bounds.
    """
    name, *parts = text.split()
    tenant = Tenant(name)
    for part in parts:
        key, _, value = part.partition("=")
        try:
            change = _part(key, value)
        except ValueError as error:
            why = str(error) if isinstance(error, LengthError) else f"none of: {PARTS}"
            raise LengthError(f"tenant {name}: {part}: {why}") from None
        tenant = replace(tenant, **change)
    return tenant


def _part(key: str, value: str) -> dict[str, Any]:
    number: float | int
    match key:
        case "prompt" | "output":
            return {key: lengths.parse(value, "prompt" if key == "prompt" else "output")}
        case "weight" if (number := float(value)) > 0:
            return {key: number}
        case "turns" if 1 <= (number := int(value)) <= 100:
            return {key: number}
        case "prefix" if 0 <= (number := int(value)) <= lengths.LONGEST:
            return {key: number}
        case "cancel" if 0 <= (number := float(value)) <= 1:
            return {key: number}
        case "key" if value:
            return {key: value}
    raise ValueError(key)


def dice(*names: object) -> random.Random:
    """A generator of its own for what these name; the same on every machine and Python."""
    return random.Random("/".join(map(str, names)))


def pick(tenants: Sequence[Tenant], seed: int, number: object) -> Tenant:
    """The tenant of a user, or of an arrival."""
    return dice(seed, "tenant", number).choices(tenants, [tenant.weight for tenant in tenants])[0]


def conversation(
    tenant: Tenant, seed: int, user: object, number: int, said: object = ""
) -> Generator[Ask, str, None]:
    """The requests of one conversation. Send it each answer's text: ``asks.send(text)`` gives the
    next request.

    Args:
        said: other words of the same lengths, for the second of a pair.
    """
    size, letters = (
        dice(seed, tenant.name, user, number),
        dice(seed, tenant.name, user, number, said),
    )
    messages: list[dict[str, str]] = []
    if tenant.prefix:
        shared = words.text(dice(seed, tenant.name, "prefix"), tenant.prefix)
        messages.append({"role": "system", "content": shared})
    for _ in range(tenant.turns):
        prompt, tokens = tenant.prompt.draw(size), tenant.output.draw(size)
        cancelled = size.random() < tenant.cancel
        after = size.randrange(tokens)
        messages.append({"role": "user", "content": words.text(letters, prompt)})
        answer = yield Ask(
            tuple(messages), tokens, size.getrandbits(31), after if cancelled else None
        )
        messages.append({"role": "assistant", "content": answer})


def following(asks: Generator[Ask, str, None], answer: str) -> Ask | None:
    """The request after an answer; None at the conversation's end."""
    try:
        return asks.send(answer)
    except StopIteration:
        return None
