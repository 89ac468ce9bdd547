"""`oea-server bench router|moe|serve`: parse, refuse, measure, keep, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oea_server.lab.bench.session import command_line, joined, keep, on_device, refusing
from oea_server.lab.records import options
from oea_server.lab.records.options import Out

if TYPE_CHECKING:
    import torch

    from oea_server.client.remote import Remote
    from oea_server.lab.bench.bandwidth import Reader
    from oea_server.lab.bench.logits import Source
    from oea_server.lab.bench.paper import Published
    from oea_server.lab.bench.served import Model
    from oea_server.lab.bench.trace import Trace

app = typer.Typer(
    no_args_is_help=True, help="Measure routers, layers and a server, side by side in one run."
)

K = 8
"""Experts per token of every preset, and of `router`."""
LOGITS = ("correlated", "uniform")
REPEATS = (3, 1000)
MAX_SEED = 2**31 - 1
SWEEP = range(3, 8)
MOE_POLICIES = ",".join(
    ["vanilla", "random", *(f"pruned:{k0}" for k0 in SWEEP), *(f"oea:{k0}" for k0 in SWEEP)]
)

Batch = Annotated[
    str,
    typer.Option("--batch", metavar="B,…", help=f"tokens per step, 1..{options.MAX_BATCH} each"),
]
Policies = Annotated[
    str,
    typer.Option(
        "--policies",
        metavar="P,…",
        help=(
            f"vanilla, random, pruned:K0, oea:K0, fill:K0 (K0 in 1..{K}, both with /share=S/mix=A),"
            " budget:D (D experts per rank)"
        ),
    ),
]
Repeats = Annotated[
    str,
    typer.Option(
        "--repeats", metavar="R", help=f"measured turns of each variant, {REPEATS[0]}..{REPEATS[1]}"
    ),
]
Seed = Annotated[
    str, typer.Option("--seed", metavar="S", help="of logits, weights and the random policy")
]
Logits = Annotated[
    str,
    typer.Option(
        "--logits",
        metavar="KIND",
        help="correlated (wakes as many experts as the paper saw) or uniform",
    ),
]


@app.command()
def router(
    batch: Batch = "1,8,16,32,64,256,512",
    experts: Annotated[
        str,
        typer.Option(
            "--experts",
            metavar="N,…",
            help=f"experts to choose among, {K}..{options.MAX_EXPERTS} each",
        ),
    ] = "64,128,256,512",
    policies: Policies = "vanilla,oea:3",
    logits: Logits = "correlated",
    repeats: Repeats = "100",
    seed: Seed = "0",
    out: Out = None,
) -> None:
    """Our routing against SGLang's, FlashInfer's and torch's top-k, on the same logits."""
    with refusing():
        batches = options.numbers("--batch", batch, 1, options.MAX_BATCH)
        counts = options.numbers("--experts", experts, K, options.MAX_EXPERTS)
        number = options.number("--seed", seed, 0, MAX_SEED)
        chosen = options.policies("--policies", policies, k=K, seed=number)
        rounds = options.number("--repeats", repeats, *REPEATS)
        kind = options.names("--logits", [logits], LOGITS)[0]
        folder = options.folder("--out", out)
    command = command_line(
        "router",
        batch=joined(batches),
        experts=joined(counts),
        policies=joined(chosen),
        logits=kind,
        repeats=rounds,
        seed=number,
    )

    from oea_server.lab.bench.paper import QWEN3_30B

    def run(device: torch.device, reader: Reader) -> None:
        from oea_server.lab.bench import router as benchmark

        source = _source(kind, QWEN3_30B, 128)
        record = benchmark.measure(
            batches,
            counts,
            chosen,
            source,
            k=K,
            repeats=rounds,
            seed=number,
            reader=reader,
            device=device,
        )
        keep(record, command, device, folder, "router", kind)

    on_device(run, "router")


@app.command()
def moe(
    preset: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            metavar="NAME,…",
            help="qwen3-30b (if not given), qwen3-235b-tp8, qwen3-235b-ep8, -ep16, -ep64, demo",
        ),
    ] = None,
    batch: Batch = "1,8,16,32,64",
    policies: Policies = MOE_POLICIES,
    logits: Logits = "correlated",
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help=(
                "recorded router logits instead of --logits: .npy or .npz, floats, steps x"
                " tokens x N"
            ),
        ),
    ] = None,
    repeats: Repeats = "30",
    seed: Seed = "0",
    out: Out = None,
) -> None:
    """One MoE layer, routing included: latency against experts read, policy by policy."""
    from oea_server.lab.bench.presets import PRESETS

    with refusing():
        presets = [
            PRESETS[name] for name in options.names("--preset", preset or ["qwen3-30b"], PRESETS)
        ]
        batches = options.numbers("--batch", batch, 1, options.MAX_BATCH)
        number = options.number("--seed", seed, 0, MAX_SEED)
        chosen = {
            each.name: options.policies("--policies", policies, k=K, seed=number, ranks=each.ranks)
            for each in presets
        }
        rounds = options.number("--repeats", repeats, *REPEATS)
        kind = options.names("--logits", [logits], LOGITS)[0]
        folder = options.folder("--out", out)
        recorded = _trace(trace, max(batches), {each.num_experts for each in presets})
    kind = "trace" if recorded else kind
    logits_flag = {"trace": recorded.name} if recorded else {"logits": kind}
    labels = joined(chosen[presets[0].name])
    given = {
        "batch": joined(batches),
        "policies": labels,
        **logits_flag,
        "repeats": rounds,
        "seed": number,
    }

    def run(device: torch.device, reader: Reader) -> None:
        from oea_server.lab.bench import moe as benchmark

        for each in presets:
            source = recorded or _source(kind, each.published, each.num_experts)
            with refusing():
                record = benchmark.measure(
                    each,
                    batches,
                    chosen[each.name],
                    source,
                    repeats=rounds,
                    seed=number,
                    reader=reader,
                    device=device,
                )
            keep(
                record,
                command_line("moe", preset=each.name, **given),
                device,
                folder,
                f"moe-{each.name}",
                kind,
            )

    on_device(run, "moe")


@app.command()
def serve(
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="a running oea-server; started here, with random weights, if not given",
        ),
    ] = None,
    layers: Annotated[
        str,
        typer.Option(
            "--layers",
            metavar="L",
            help="Qwen3-30B-shaped layers of the server started here, 1..48",
        ),
    ] = "2",
    batch: Batch = "1,4,16,32",
    policies: Policies = "vanilla,oea:3",
    tokens: Annotated[
        str, typer.Option("--tokens", metavar="T", help="per answer, 8..1024")
    ] = "64",
    repeats: Repeats = "5",
    speculative: Annotated[
        bool,
        typer.Option(
            "--speculative",
            help=(
                "verify drafts: by NGRAM where the server is started here, else by what it has, its"
                " caches emptied "
                "before each round; the chats are lists that go on as they began; oea:K0/draft_k0=D"
                " guarantees drafts less"
            ),
        ),
    ] = False,
    tiers: Annotated[
        bool,
        typer.Option(
            "--tiers",
            help=(
                "what exact requests cost: of the largest --batch, at the first oea:K0 of"
                " --policies, 0, 5, 25, 50 "
                "and 100 % are exact; on a server that is started here"
            ),
        ),
    ] = False,
    out: Out = None,
) -> None:
    """Decode on one live server: time per token, the policy switched between rounds."""
    with refusing():
        if tiers and (speculative or url is not None):
            raise options.OptionError(
                "--tiers: on a server that is started here, and without --speculative"
            )
        depth = options.number("--layers", layers, 1, 48)
        batches = options.numbers("--batch", batch, 1, options.MAX_BATCH)
        chosen = options.policies("--policies", policies, k=K, seed=0, drafted=speculative)
        for label, policy in chosen.items():
            # the server is told of no pool: under this label it would run plain OEA
            if policy.pool != "union":
                raise options.OptionError(
                    f"--policies={label}: bench serve switches vanilla, random, pruned and oea"
                )
        rounds = options.number("--repeats", repeats, *REPEATS)
        length = options.number("--tokens", tokens, 8, 1024)
        folder = options.folder("--out", out)
        floors = [
            max(policy.k0.values)
            for policy in chosen.values()
            if policy.name == "oea" and policy.k0
        ]
        if tiers and not floors:
            raise options.OptionError(
                "--tiers: --policies names no oea:K0 for the requests that are not exact"
            )
    where: dict[str, object] = {"layers": depth} if url is None else {"url": "URL"}
    given = {
        "batch": joined(batches),
        "policies": joined(chosen),
        "tokens": length,
        "repeats": rounds,
    }
    command = command_line("serve", **where, **given) + (" --speculative" if speculative else "")
    command += " --tiers" if tiers else ""

    def run(device: torch.device, reader: Reader) -> None:
        from oea_server.lab.bench import drafts, tiered
        from oea_server.lab.bench.serve import measure
        from oea_server.lab.bench.served import attach, own_server

        def bench(server: Remote, model: Model) -> None:
            with refusing():
                drafted = drafts.of(server) if speculative else None
            measured = {**model._asdict(), "drafts": drafted}
            record = measure(
                server,
                batches,
                chosen,
                tokens=length,
                repeats=rounds,
                seed=0,
                reader=reader,
                **measured,
            )
            name = f"serve-{model.model}" + ("-speculative" if speculative else "")
            keep(record, command, device, folder, name, "correlated")

        if tiers:
            with own_server(depth, max(batches), *tiered.FLAGS) as (server, model):
                told = {"tokens": length, "repeats": rounds, "reader": reader, **model._asdict()}
                record = tiered.measure(server, max(batches), floors[0], **told)
                keep(record, command, device, folder, f"serve-{model.model}-tiers", "correlated")
            return
        if url is not None:
            with refusing():
                remote, model = attach(url)
            bench(remote, model)
            return
        with own_server(depth, max(batches), *(drafts.NGRAM if speculative else ())) as (
            server,
            model,
        ):
            bench(server, model)

    on_device(run, "serve")


def _trace(path: Path | None, batch: int, experts: set[int]) -> Trace | None:
    if path is None:
        return None
    from oea_server.lab.bench.trace import read

    recorded = read(path)
    for count in experts:
        recorded.check(batch, count)
    return recorded


def _source(kind: str, published: Published, num_experts: int) -> Source:
    from oea_server.lab.bench.logits import Uniform, correlated_like

    if kind == "uniform":
        return Uniform()
    print(f"fitting logits to the paper's T of {published.model}", flush=True)
    return correlated_like(published, num_experts)
