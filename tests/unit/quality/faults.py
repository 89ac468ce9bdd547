"""Faults of a router, each planted in every implementation: the compiled loop, the kernel,
eager."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch

from oea_server.routing import Routing, eager, entry, fused, host, kernel
from oea_server.routing.knobs import FIELDS

Plant = Callable[[pytest.MonkeyPatch], None]
IMPLEMENTATIONS: Mapping[str, Callable[..., Routing]] = {
    "host": lambda *given, **named: host.route(*given, **named),  # noqa: PLW0108
    "fused": lambda *given, **named: fused.route(*given, **named),  # noqa: PLW0108
    "eager": lambda *given, **named: eager.route(*given, **named),  # noqa: PLW0108
}
"""Looked up at each call, so that a fault that is planted later is met."""


class Fault(NamedTuple):
    """What is wrong, and how to break each implementation that way."""

    name: str
    plant: Mapping[str, Plant]


def loop(
    change: Callable[[dict[str, Any]], None], after: Callable[..., Any] | None = None
) -> Plant:
    """The compiled loop with changed arguments (by name), or a changed result."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        real: Any = entry.compiled_enter
        signature = inspect.signature(real.py_func)

        def broken(*given: Any) -> Any:
            arguments = dict(signature.bind(*given).arguments)
            change(arguments)
            found = real(*arguments.values())
            return found if after is None else after(*found)

        monkeypatch.setattr(entry, "compiled_enter", broken)

    return plant


def helper(
    module: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Plant:
    """A function of a module, wrapped."""
    return lambda monkeypatch: monkeypatch.setattr(module, name, wrap(getattr(module, name)))


def launch(change: Callable[[dict[str, Any]], None]) -> Plant:
    """The kernel launched with changed arguments, by name."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        real: Any = kernel.route_kernel
        names = list(inspect.signature(real.fn).parameters)

        class Broken:
            def __getitem__(self, grid: Any) -> Callable[..., Any]:
                def run(*given: Any, **named: Any) -> Any:
                    arguments = dict(zip(names, given, strict=False)) | named
                    change(arguments)
                    return real[grid](**arguments)

                return run

        monkeypatch.setattr(fused, "route_kernel", Broken())

    return plant


def nothing(arguments: dict[str, Any]) -> None:
    """No argument is changed."""


def more(off: int) -> Fault:
    """Each token is guaranteed so many experts more."""

    def argument(arguments: dict[str, Any]) -> None:
        # vanilla's is k already: beyond it the loop would read past its own top k
        floor, *rest = arguments["numbers"]
        arguments["numbers"] = (min(floor + off, arguments["k"]), *rest)

    def in_launch(arguments: dict[str, Any]) -> None:
        numbers = arguments["numbers_ptr"].clone()
        numbers[:, FIELDS.index("floor")] = (numbers[:, FIELDS.index("floor")] + off).clamp(
            max=arguments["K"]
        )
        arguments["numbers_ptr"] = numbers

    def in_eager(real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda best, scores, mass, numbers, *rest: real(
            best, scores, mass, numbers._replace(floor=numbers.floor + off), *rest
        )

    plants = {
        "host": loop(argument),
        "fused": launch(in_launch),
        "eager": helper(eager, "floor", in_eager),
    }
    return Fault(f"floor{off:+d}", plants)


def pads() -> Fault:
    """Pad rows have floors too."""

    def real_in_loop(arguments: dict[str, Any]) -> None:
        arguments["tokens"] = arguments["batch"]

    def real_in_launch(arguments: dict[str, Any]) -> None:
        arguments["num_real"], arguments["REAL"] = arguments["batch"], "host"

    def in_eager(real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: real(
            *given[:-1], given[-1]._replace(real=torch.ones_like(given[-1].real))
        )

    plants = {
        "host": loop(real_in_loop),
        "fused": launch(real_in_launch),
        "eager": helper(eager, "floor", in_eager),
    }
    return Fault("pads in the pool", plants)


def swapped() -> Fault:
    """Weights in the wrong order."""

    def in_loop(weights: Any, ids: Any, pool: Any) -> Any:
        return weights[:, ::-1].copy(), ids, pool

    def in_launch(real: Callable[..., Any]) -> Callable[..., Any]:
        def route(*given: Any, **named: Any) -> Routing:
            routing: Routing = real(*given, **named)
            return routing._replace(weights=routing.weights.flip(-1))

        return route

    def in_eager(real: Callable[..., Any]) -> Callable[..., Any]:
        def weigh(*given: Any) -> tuple[Routing, torch.Tensor]:
            routing, mass = real(*given)
            return routing._replace(weights=routing.weights.flip(-1)), mass

        return weigh

    plants = {
        "host": loop(nothing, in_loop),
        "fused": helper(fused, "route", in_launch),
        "eager": helper(eager, "weigh", in_eager),
    }
    return Fault("weights of the wrong experts", plants)


FAULTS = (more(-1), more(1), pads(), swapped())
