"""The commands, the families, and the model that each is for."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
CONFIGS = HERE / "configs"
MODELS = {
    ("deepseek-r1", "fp8"): "deepseek-v3-fp8",
    ("deepseek-r1", "fp4"): "deepseek-r1-nvfp4",
    ("deepseek-v4", "fp8"): "deepseek-v4-pro",
    ("deepseek-v4", "fp4"): "deepseek-v4-pro",
    ("deepseek-v4", ""): "deepseek-v4-pro",
    ("glm-5", "fp8"): "glm-5-fp8",
    ("glm-5", "fp4"): "glm-5-nvfp4",
    ("glm-5", ""): "glm-5-fp8",
    ("qwen3.5-397b", "fp8"): "qwen3.5-397b-a17b-fp8",
    ("qwen3.5-397b", "fp4"): "qwen3.5-397b-a17b-nvfp4",
    ("qwen3.5-397b", ""): "qwen3.5-397b-a17b-fp8",
}
"""A recipe's family and weights -> the config of its model."""
PLATFORMS = ("h200", "b200", "b300", "rtx6000")
"""What families are asked on."""


class Command(NamedTuple):
    """One command line on one card."""

    model: str
    """The name of its config in `configs/`."""
    hardware: str
    argv: str
    source: str
    stands_for: int = 1
    """How many public recipes are this one, as far as routing goes."""
    family: str = ""
    """The family's name in `families.json`."""

    @property
    def question(self) -> list[str]:
        """For `oea_server.absent.many`."""
        return ["--model-config", str(CONFIGS / f"{self.model}.json"), *self.argv.split()]


def recipes() -> list[Command]:
    return [
        Command(
            MODELS[each["family"], each["weights"]],
            each["hardware"],
            each["argv"],
            "InferenceX",
            each["count"],
        )
        for each in _read("recipes.json")
    ]


def cookbook() -> list[Command]:
    return [
        Command(each["model"], each["hardware"], each["argv"], each["source"])
        for each in _read("cookbook.json")
    ]


def families() -> list[Command]:
    """Each family on each of the platforms."""
    return [
        Command(each["model"], hardware, each["argv"], "", family=each["family"])
        for each in _read("families.json")
        for hardware in PLATFORMS
    ]


def evidence(model: str) -> str:
    """What stands behind a model's routing here: "served", "run", "built" or "resolved"."""
    from oea_server.engine import architectures

    named = json.loads((CONFIGS / f"{model}.json").read_text(encoding="utf-8"))["architectures"][0]
    known: dict[str, str] = _read("evidence.json")
    level = next(
        (known[block] for block in architectures.ARCHITECTURES.get(named, ()) if block in known),
        "resolved",
    )
    stopped = {each for one in not_run() for each in one["architectures"]}
    return "built" if level == "run" and named in stopped else level


def not_run() -> list[dict[str, Any]]:
    """Families that SGLang 0.5.23 does not decode on our CPU platform, and because of what: all
    were tried, tiny."""
    found: list[dict[str, Any]] = _read("not_run.json")
    return found


def run_in_part() -> list[dict[str, str]]:
    """Families of whose tiny models something is left out, or computed by the tests in place of a
    kernel."""
    found: list[dict[str, str]] = _read("run_in_part.json")
    return found


def digest() -> str:
    """Of everything that is asked, and of whom."""
    found = hashlib.sha256(version("sglang").encode())
    for path in sorted([*HERE.glob("*.json"), *CONFIGS.glob("*.json")]):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _read(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))
