"""What a captured graph reads is never freed. Its replays touch no cache, so a cache that drops
what is old would leave the graph reading memory that is somebody else's by then."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from oea_server.routing import Policy, Router, Routing, eager, fused
from oea_server.routing.knobs import Knobs, knobs_of
from oea_server.routing.placement import contiguous
from oea_server.routing.ranking import arange, sort_keys
from oea_server.routing.records import unread

CPU = torch.device("cpu")
MANY = 1100
"""Above every bound that one of our caches has had."""

LOGITS, REAL = torch.randn(5, 16), torch.tensor(4)
KNOBS = Knobs({0: 4}, 16, CPU)

CALLS: dict[str, dict[str, Any]] = {
    "a policy": {"policy": Policy.oea("1:4,3:2")},
    "random": {"policy": Policy.random(1)},
    "knobs": {"policy": KNOBS},
    "ranks": {"policy": KNOBS, "placement": contiguous(16, 4, CPU)},
}


def call(route: Callable[..., Routing], name: str) -> Routing:
    """As in a graph, which reads the count of its rows on the device."""
    return route(LOGITS, **CALLS[name], router=Router(4), num_real=REAL)


class Reads(TorchDispatchMode):
    """Whose memory torch's operators read, other than what they made themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[torch.UntypedStorage] = []
        self.read: list[StorageWeakRef] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = {each._cdata for each in self.made}
        given = [
            each.untyped_storage()
            for each in tree_leaves((args, kwargs))
            if isinstance(each, torch.Tensor)
        ]
        self.read += [StorageWeakRef(each) for each in given if each._cdata not in own]
        out = func(*args, **(kwargs or {}))
        self.made += [
            each.untyped_storage() for each in tree_leaves(out) if isinstance(each, torch.Tensor)
        ]
        return out


def use_caches_for_many_others() -> None:
    policy = Policy.oea(1)
    for i in range(1, MANY):
        arange(i, CPU)
        sort_keys(torch.zeros(1, i))
        contiguous(i, 1, CPU)
        knobs_of(policy, i, 4, 16, CPU)
        unread(i, CPU)
    gc.collect()


@pytest.mark.parametrize("name", CALLS)
def test_what_torch_read_is_still_there(name: str) -> None:
    call(eager.route, name)  # as before a capture
    with Reads() as reads:
        call(eager.route, name)
    reads.made.clear()
    use_caches_for_many_others()
    assert len({each.cdata for each in reads.read}) > 3
    assert not any(each.expired() for each in reads.read)


@pytest.mark.parametrize("name", CALLS)
def test_what_the_launch_read_is_still_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[StorageWeakRef] = []

    class Kernel:
        def __getitem__(self, grid: Any) -> Callable[..., None]:
            return lambda *args, **constants: read.extend(
                StorageWeakRef(each.untyped_storage())
                for each in args
                if isinstance(each, torch.Tensor)
            )

    with monkeypatch.context() as patched:
        patched.setattr(fused, "route_kernel", Kernel())
        routing = call(fused.route, name)
    use_caches_for_many_others()
    assert len(read) > 5
    assert not any(each.expired() for each in read)
    assert routing.pool.shape == (16,)


def test_tables_are_on_the_host_whatever_the_default_device() -> None:
    """SGLang builds its models with a GPU as torch's default device, and a later change of the
    policy without."""
    policy, k, n = Policy.oea("1:3,5:2; 1=1"), 3, 12
    with torch.device("meta"):
        knobs = Knobs({0: k, 1: k}, n, CPU)
        knobs.write(policy)
    knobs.write(Policy.oea("1:3,5:2; 1=2"))  # the table of layer 0 again, with another layer's
    assert knobs.table[0, 5, :3].tolist() == [2, 3, 12]
    assert knobs.table[1, 5, :3].tolist() == [2, 3, 12]
