"""The gate: a release that costs quality, or reads more experts, does not pass.

It runs the shipped model on its held-out text with the routing that serves, pad rows included, and
compares with what was measured when the thresholds were set (`gate.json`, made by `oea-server eval
--gate --set`)."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from oea_server import shipped
from oea_server.lab.bench import timing
from oea_server.lab.quality import equal, text
from oea_server.lab.quality.arms import Arm, parse
from oea_server.lab.quality.evaluation import fingerprint, load
from oea_server.lab.quality.measure import Judge, Measured
from oea_server.lab.quality.padded import padded
from oea_server.lab.quality.routed import routers
from oea_server.routing.policy import Policy
from oea_server.routing.schedule import default_schedule

KEPT = Path(__file__).parent / "gate.json"
SEQUENCES, LENGTH, SEED = 64, 96, 0
BATCHES = (1, 4, 16)
PADS = 3
K0S = (2, 3, 4, 5, 6)
"""Compared with pruning, and with each other, at the largest batch."""
RANKS = 8
BARS = {
    "oea:8/share=0.13/mix=0.5": ("unique", 0.66),
    f"fill:8/ranks={RANKS}/share=0.13/mix=0.5": ("busiest", 0.22),
}
"""Arms at the largest batch, with what they read: experts, or experts of the busiest rank. The
number is the most that they may lose, as a share of plain OEA's loss where it reads as much."""
LOSS_SLACK, READ_SLACK = 0.15, 0.02
"""How far an increase in cross-entropy and T may be from what was measured: other kernels round
otherwise."""
LEAST_CORRELATION = 0.9
VANILLA_KL = 1e-6
"""Nats. The routing's exponentials round otherwise than torch's, to about 1e-8."""


class Check(NamedTuple):
    """One thing that has to hold."""

    what: str
    passed: bool
    found: str


def judge(sequences: int = SEQUENCES, length: int = LENGTH) -> Judge:
    """The shipped model on its held-out text: on the GPU where there is one, in float32
    everywhere."""
    device = timing.pick_device()
    network, tokenizer = load(str(shipped.model()), device)
    found = text.load(shipped.held_out(), tokenizer, length, sequences, "mixed", SEED)
    network = network.float()
    return Judge(network, routers(network), found.ids.to(device))


def measure(only: Collection[str] = (), by: Judge | None = None) -> dict[str, Measured]:
    """What the gate looks at, by ``arm@B``.

    Args:
        only: of all of it these, for a test that asserts no others; everything if empty.
        by: the model and text; `judge()` if None.
    """
    by = by or judge()
    schedule = Policy.oea(default_schedule(by.found.k))
    largest = BATCHES[-1]
    runs: list[tuple[Arm, int]] = [(parse("vanilla"), batch) for batch in BATCHES]
    runs += [(padded("default", schedule, PADS), batch) for batch in BATCHES]
    runs += [(padded("default/bfloat16", schedule, PADS, torch.bfloat16), largest)]
    runs += [(padded(f"oea:{k0}", Policy.oea(k0), PADS), largest) for k0 in K0S]
    runs += [(parse(f"pruned:{k0}"), largest) for k0 in K0S]
    runs += [
        (padded(label, policy, PADS), largest) for label in BARS if (policy := parse(label).policy)
    ]
    named = {f"{arm.label}@{batch}": (arm, batch) for arm, batch in runs}
    return {
        name: by.measure(*run, (RANKS,)) for name, run in named.items() if not only or name in only
    }


def summary(measured: dict[str, Measured]) -> dict[str, dict[str, float]]:
    """What `gate.json` keeps. Increase in cross-entropy over vanilla at the same batch size, T and
    mass kept, and of `BARS` what is lost over plain OEA."""
    found = {}
    for name, each in measured.items():
        base = measured[f"vanilla@{name.rpartition('@')[2]}"]
        found[name] = {
            "increase": float(np.mean(each.loss) - np.mean(base.loss)),
            "unique": float(np.mean(each.unique)),
            "kept": float(np.mean(each.kept)),
            "kl": float(np.mean(each.kl)),
        }
    largest = BATCHES[-1]
    for label, (what, _) in BARS.items():
        if (name := f"{label}@{largest}") in measured:
            base = measured[f"vanilla@{largest}"]
            plain = [_point(measured[f"oea:{k0}@{largest}"], base, what) for k0 in K0S]
            ratio = equal.over(_point(measured[name], base, what), plain)
            value, _, high = ratio or (math.inf,) * 3  # it reads less or more than every plain OEA
            found[name] |= {"over": value, "over_high": high}
    return found


def _point(mine: Measured, base: Measured, what: str) -> equal.Point:
    reads = mine.unique if what == "unique" else mine.busiest[RANKS]
    return equal.Point(float(np.mean(reads)), np.subtract(mine.loss, base.loss))


def bounds(name: str, now: dict[str, float], before: dict[str, float]) -> list[Check]:
    """Judge one ``arm@B`` by what was measured when the thresholds were set."""
    most = before["increase"] + max(LOSS_SLACK * abs(before["increase"]), 0.001)
    lost, read, expected = now["increase"], now["unique"], before["unique"]
    off = abs(read / expected - 1)
    result = [
        Check(f"{name} loses at most {most:+.4f} nats", lost <= most, f"{lost:+.4f}"),
        Check(f"{name} reads {expected:.1f} experts", off <= READ_SLACK, f"{read:.1f}"),
    ]
    if name.startswith("vanilla@"):  # its increase is over itself
        kl = now["kl"]
        what = f"{name} says what the model says, within {VANILLA_KL:.0e} nats of KL"
        result.append(Check(what, abs(kl) <= VANILLA_KL, f"{kl:+.1e}"))
    return result


def checks(found: dict[str, dict[str, float]], kept: dict[str, Any]) -> list[Check]:
    """Judge a summary by what was kept."""
    result = [
        check
        for name, before in kept["measured"].items()
        for check in bounds(name, found[name], before)
    ]
    lone = found["default@1"]["increase"]
    result.append(Check("a lone token gets vanilla, exactly", lone == 0.0, f"{lone:+.1e}"))
    largest = BATCHES[-1]
    for k0 in K0S:
        ours, pruned = (found[f"{kind}:{k0}@{largest}"]["increase"] for kind in ("oea", "pruned"))
        result.append(
            Check(
                f"oea:{k0} loses less than pruned:{k0}",
                ours < pruned,
                f"{ours:+.4f} to {pruned:+.4f}",
            )
        )
    for label, (what, most) in BARS.items():
        over, high = (found[f"{label}@{largest}"][name] for name in ("over", "over_high"))
        where = "T" if what == "unique" else f"busiest of {RANKS} ranks"
        said = f"{label} loses at most {most} of plain OEA at the same {where}, intervals apart"
        result.append(Check(said, over <= most and high < 1.0, f"{over:.2f}, at most {high:.2f}"))
    arms = [found[f"{kind}:{k0}@{largest}"] for kind in ("oea", "pruned") for k0 in K0S]
    lost, mass = ([each[name] for each in arms] for name in ("increase", "kept"))
    correlation = float(
        np.corrcoef(np.argsort(np.argsort(lost)), np.argsort(np.argsort([-m for m in mass])))[0, 1]
    )
    result.append(
        Check(
            f"mass kept tells the loss (rank correlation at least {LEAST_CORRELATION})",
            correlation >= LEAST_CORRELATION,
            f"{correlation:.3f}",
        )
    )
    return result


def read() -> dict[str, Any]:
    """What was measured when the thresholds were set.

    Raises:
        ValueError: that was another model.
    """
    kept: dict[str, Any] = json.loads(KEPT.read_text())
    if kept["model_sha256"] != fingerprint(shipped.model()):
        raise ValueError(
            "gate.json is of another demo model: measure again with 'oea-server eval --gate --set'"
        )
    return kept


def keep(found: dict[str, dict[str, float]]) -> None:
    """Set the thresholds to what was measured now: when the model, the text or the schedule changed
    on purpose."""
    content = {"model_sha256": fingerprint(shipped.model()), "measured": found}
    KEPT.write_text(json.dumps(content, indent=1) + "\n")
