"""Tiny models of well-known families, decoded by SGLang's own model runner: without us, by our
vanilla, by OEA.

Run: python -m tests.engine.run_families FOLDER RANKS NAME... Leaves of each family in FOLDER:
NAME-plain.pt without our router, NAME-ours.pt with it; with two ranks NAME-rank0.pt and
NAME-rank1.pt. Each holds the fields of its `Run`s, or the error. All but HTTP and the scheduler are
as in a server, which would take a minute for each of them: SGLang is imported once, and each run is
a fork of that."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import traceback
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from oea_server.client import ports
from tests.engine import checkpoints, standins
from tests.engine.checkpoints import FAMILIES
from tests.engine.tiny_checkpoints import K0

ALONE = [[100 + 7 * i + j for j in range(4 + i)] for i in range(3)]
TOGETHER = [[100 + 7 * i + j for j in range(12)] for i in range(7)]
STEPS = 16
KNOBS = {"OEA_K0": str(K0), "OEA_MIN_BATCH": "2", "OEA_POOL": "union"}
FLAGS = (
    "--dtype float32 --max-total-tokens 1024 --max-running-requests 8 --chunked-prefill-size 256"
)


class Run(NamedTuple):
    """Prompts that decode in step, greedily."""

    logits: torch.Tensor
    """[1 + STEPS, prompts, vocabulary], the prefill's first."""
    experts: torch.Tensor
    """[STEPS, prompts, MoE layers, k], as SGLang keeps them for its routing replay."""
    gained: dict[str, int]
    """What our tally gained; empty without us."""


def decode(runner: Any, prompts: list[list[int]], moe: list[int]) -> Run:
    from sglang.benchmark import one_batch
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams
    from sglang.srt.state_capturer.routed_experts import get_global_experts_capturer

    runner.req_to_token_pool.clear()
    runner.token_to_kv_pool_allocator.clear()
    requests = []
    for i, prompt in enumerate(prompts):
        sampling = SamplingParams(temperature=0, max_new_tokens=STEPS + 1)
        request = Req(f"user-{i}", "", array("q", prompt), sampling)
        request.full_untruncated_fill_ids = request.origin_input_ids
        request.logprob_start_len, request.extend_end = -1, len(prompt)
        requests.append(request)
    before = counted()
    tokens, logits, batch = one_batch.extend(requests, runner)
    found, experts = [logits.clone()], []
    for _ in range(STEPS):
        tokens, logits = one_batch.decode(tokens, batch, runner)
        found.append(logits.clone())
        experts.append(
            get_global_experts_capturer().device_cache.buffer[: len(prompts), moe].clone()
        )
    gained = {name: value - before[name] for name, value in counted().items()}
    return Run(torch.stack(found), torch.stack(experts), gained)


def counted() -> dict[str, int]:
    from oea_server.engine import runtime
    from oea_server.observe import parts

    now = runtime.current
    if now is None or now.tally is None:
        return {}
    seen = parts.split(parts.read(now.tally))
    unique, busiest, vanilla, sums = seen.unique, seen.busiest, seen.vanilla, seen.sums
    layers = [now.expert_bytes[layer] for layer in now.tally.row]
    tokens, assignments, piggybacked, _ = sums.sum(axis=0).tolist()
    read = parts.experts(unique)
    return {
        "layers": int(unique.sum()),
        "unique": int(read.sum()),
        "busiest": int(parts.experts(busiest).sum()),
        "vanilla": int(parts.experts(vanilla).sum()),
        "bytes": int((read * layers).sum()),
        "tokens": tokens,
        "assignments": assignments,
        "piggybacked": piggybacked,
    }


def runner_of(folder: Path, rank: int, ranks: int, port: int) -> Any:
    """A model runner as a scheduler has it."""
    from sglang.benchmark import one_batch
    from sglang.srt.runtime_context import SpawnRanks, publish, spawn_world_rank
    from sglang.srt.server_args import PortArgs, ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    flags = ["--model-path", str(folder), *FLAGS.split(), *FAMILIES[folder.name].flags.split()]
    flags += [
        "--tp",
        str(ranks),
        "--ep-size",
        str(ranks),
        "--log-level",
        "error",
        "--enable-return-routed-experts",
    ]
    server_args = ServerArgs.from_cli_args(parser.parse_args(flags))
    server_args.resolve_once()
    world_rank = spawn_world_rank(server_args, tp_rank=rank, pp_rank=0)
    publish(server_args, role="scheduler", ranks=SpawnRanks(world_rank=world_rank, gpu_id=0))
    one_batch._init_process_global_configs()
    ports = dataclasses.replace(PortArgs.init_new(server_args), nccl_port=port)
    with mock.patch("torch.cuda.Stream", return_value=None):  # Kimi-K3 makes three, for graphs
        return one_batch.load_model(server_args, ports, 0, rank)[0].torch_runner


def steer(policy: str) -> None:
    from oea_server.engine import runtime

    assert runtime.current is not None
    steering = runtime.current.steering
    assert steering.change(steering.settings.model_copy(update={"policy": policy})) is None


def plug_in() -> None:
    from sglang.srt.plugins import load_plugins

    os.environ |= KNOBS
    os.environ["SGLANG_PLUGINS"] = ""
    load_plugins()


def plain(folder: Path) -> list[Run]:
    runner, moe = runner_of(folder, 0, 1, ports.free()), checkpoints.moe_layers(folder)
    return [decode(runner, [prompt], moe) for prompt in ALONE] + [decode(runner, TOGETHER, moe)]


def ours(folder: Path) -> list[Run]:
    """By OEA, then by vanilla; each as `plain`."""
    plug_in()
    runner, moe = runner_of(folder, 0, 1, ports.free()), checkpoints.moe_layers(folder)
    found = []
    for policy in ("oea", "vanilla"):
        steer(policy)
        found += [decode(runner, [prompt], moe) for prompt in ALONE] + [
            decode(runner, TOGETHER, moe)
        ]
    return found


def of_two(folder: Path, rank: int, port: int) -> list[Run]:
    plug_in()
    return [decode(runner_of(folder, rank, 2, port), TOGETHER, checkpoints.moe_layers(folder))]


def forked(path: Path, work: Callable[[], list[Run]]) -> int:
    """Do it in a child, which leaves in `path` what it returns, or the error, and beside it what it
    said."""
    if pid := os.fork():
        return pid
    os.setsid()
    # makes this process's own pool, before threads that load weights ask for it at once
    torch.set_num_threads(1)
    log = os.open(path.with_suffix(".log"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        found: Any = [tuple(run) for run in work()]
    except BaseException as error:
        traceback.print_exc()
        found = f"{type(error).__name__}: {error}"
    torch.save(found, path)
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    folder, ranks, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    os.environ |= {"SGLANG_PLUGINS": "oea_cpu", "HF_MODULES_CACHE": str(folder / "modules")}
    # a child that gives up ends its parent, as a scheduler does
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    torch.set_num_threads(1)
    import sglang.benchmark.one_batch
    import sglang.srt.models.registry  # noqa: F401

    standins.install()
    for name in names:
        here = folder / name
        checkpoints.make(here, FAMILIES[name])
        port = ports.free()
        if ranks == 1:
            work = {"plain": partial(plain, here), "ours": partial(ours, here)}
        else:
            work = {f"rank{rank}": partial(of_two, here, rank, port) for rank in range(ranks)}
        children = [forked(folder / f"{name}-{kind}.pt", each) for kind, each in work.items()]
        for pid in children:
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
