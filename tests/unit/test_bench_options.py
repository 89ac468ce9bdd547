"""What `oea-server bench` is told: parsed, or refused with one line before anything heavy is
imported."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from oea_server.lab.bench import trace
from oea_server.lab.bench.commands import app
from oea_server.lab.records import options
from oea_server.lab.records.options import OptionError
from oea_server.routing import Policy


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_lists_keep_their_order_and_drop_repeats() -> None:
    assert options.numbers("--batch", "16, 1,16,8", 1, 512) == [16, 1, 8]
    assert options.names("--preset", ["demo,qwen3-30b", "demo"], ["qwen3-30b", "demo"]) == [
        "demo",
        "qwen3-30b",
    ]


def test_policies_are_read_by_label() -> None:
    found = options.policies("--policies", "vanilla,random,pruned:3,oea:04", k=8, seed=7)
    assert found == {
        "vanilla": Policy.vanilla(),
        "random": Policy.random(7),
        "pruned:3": Policy.pruned(3),
        "oea:4": Policy.oea(4),
    }
    weighed = options.policies(
        "--policies", "oea:8/share=0.13/mix=.5,fill:8/share=0.1", k=8, seed=0, ranks=4
    )
    assert weighed == {
        "oea:8/share=0.13/mix=0.5": Policy.oea(8, share=0.13, mix=0.5),
        "fill:8/share=0.1": Policy.oea(8, pool="fill", ranks=4, share=0.1),
    }
    drafted = options.policies("--policies", "oea:3/draft_k0=1,oea:3", k=8, seed=0, drafted=True)
    assert drafted == {"oea:3/draft_k0=1": Policy.oea(3, draft_k0=1), "oea:3": Policy.oea(3)}
    ranked = options.policies("--policies", "fill:3,budget:6", k=8, seed=0, ranks=16)
    assert ranked == {
        "fill:3": Policy.oea(3, pool="fill", ranks=16),
        "budget:6": Policy.oea(1, pool="budget", ranks=16, rank_budget=6),
    }


WRONG = [
    (
        ["moe", "--preset", "qwen3-70b"],
        (
            "--preset=qwen3-70b: is none of qwen3-30b, qwen3-235b-tp8, qwen3-235b-ep8,"
            " qwen3-235b-ep16, qwen3-235b-ep64, demo"
        ),
    ),
    (["moe", "--preset", "demo", "--preset", ""], "--preset=: a value is missing"),
    (["moe", "--batch", "0"], "--batch=0: 0 is outside 1..512"),
    (["moe", "--batch", "1,,8"], "--batch=1,,8: a value is missing"),
    (["moe", "--batch", "8,many"], "--batch=8,many: 'many' is not a whole number"),
    (
        ["moe", "--policies", "vanilla,oae:3"],
        "--policies=oae:3: is none of vanilla, random, pruned:K0, oea:K0, fill:K0, budget:D",
    ),
    (["moe", "--policies", "fill"], "--policies=fill: needs a k0 of 1..8, as in fill:3"),
    (["moe", "--policies", "budget"], "--policies=budget: needs experts per rank, as in budget:6"),
    (["moe", "--policies", "budget:0"], "--policies=budget:0: 0 is outside 1..1024"),
    (["moe", "--policies", "oea"], "--policies=oea: needs a k0 of 1..8, as in oea:3"),
    (["moe", "--policies", "oea:9"], "--policies=oea:9: 9 is outside 1..8"),
    (
        ["moe", "--policies", "oea:8/share=1"],
        "--policies=oea:8/share=1: share=1.0 is outside 0 <= share < 1",
    ),
    (
        ["moe", "--policies", "oea:8/mix=2"],
        "--policies=oea:8/mix=2: mix=2.0 is outside 0 <= mix <= 1",
    ),
    (["moe", "--policies", "oea:8/p=0.5"], "--policies=oea:8/p=0.5: p is none of share, mix"),
    (
        ["serve", "--policies", "oea:3/draft_k0=1"],
        "--policies=oea:3/draft_k0=1: draft_k0 is none of share, mix",
    ),
    (
        ["serve", "--speculative", "--policies", "oea:3/draft_k0=4"],
        "--policies=oea:3/draft_k0=4: 4 is outside 1..3",
    ),
    (
        ["moe", "--policies", "oea:8/mix=1/mix=0"],
        "--policies=oea:8/mix=1/mix=0: mix is given twice",
    ),
    (
        ["moe", "--policies", "pruned:8/share=0.1"],
        "--policies=pruned:8/share=0.1: '8/share=0.1' is not a whole number",
    ),
    (["moe", "--policies", "vanilla:3"], "--policies=vanilla:3: vanilla takes no k0"),
    (
        ["serve", "--policies", "vanilla,fill:3"],
        "--policies=fill:3: bench serve switches vanilla, random, pruned and oea",
    ),
    (["moe", "--policies", "vanilla:"], "--policies=vanilla:: vanilla takes no k0"),
    (["moe", "--policies", "oea:3,oea:03"], "--policies=oea:3,oea:03: oea:03 is given twice"),
    (["moe", "--logits", "real"], "--logits=real: is none of correlated, uniform"),
    (["moe", "--repeats", "2"], "--repeats=2: 2 is outside 3..1000"),
    (["moe", "--seed", "-1"], "--seed=-1: -1 is outside 0..2147483647"),
    (["moe", "--out", f"{__file__}/x"], f"--out={__file__}/x: {__file__} is not a directory"),
    (["moe", "--trace", "nowhere.npy"], "--trace=nowhere.npy: no such file"),
    (["moe", "--trace", __file__], f"--trace={__file__}: is neither .npy nor .npz"),
    (["router", "--experts", "4"], "--experts=4: 4 is outside 8..1024"),
    (["router", "--batch", "1000"], "--batch=1000: 1000 is outside 1..512"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=lambda value: str(value)[-50:])
def test_refused_with_one_clear_line(words: list[str], message: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert result.stderr == f"oea-server: {message}\n"
    assert result.stdout == ""


def test_refused_before_anything_heavy_is_imported() -> None:
    script = (
        "import sys\n"
        "from oea_server.lab.bench.commands import app\n"
        "try: app(['moe', '--batch', '0'])\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, sorted({'torch', 'sglang', 'numpy', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == "2 []\n"


def test_help_names_every_option() -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", run("moe", "--help").stdout)
    for option in (
        "--preset",
        "--batch",
        "--policies",
        "--logits",
        "--trace",
        "--repeats",
        "--seed",
        "--out",
    ):
        assert option in plain


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_a_trace_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    logits = np.zeros((3, 4, 128), np.float16)
    np.save(tmp_path / "ids.npy", np.zeros((3, 4, 128), np.int32))
    np.save(tmp_path / "flat.npy", np.zeros((3, 128), np.float32))
    np.save(tmp_path / "good.npy", logits)
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    two = saved(tmp_path / "two.npz", a=logits, b=logits)
    for path, message in (
        (tmp_path / "ids.npy", "holds int32 3x4x128, not floats [steps, tokens, experts]"),
        (tmp_path / "flat.npy", "holds float32 3x128, not floats"),
        (tmp_path / "text.npy", "is not a NumPy file"),
        (tmp_path / "text.npz", "is not a NumPy file"),
        (two, "has no array 'router_logits' (has: a, b)"),
    ):
        with pytest.raises(OptionError) as refusal:
            trace.read(path)
        assert message in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert (
        trace.read(saved(tmp_path / "named.npz", other=logits, router_logits=logits)).name
        == "named.npz"
    )
    refused = run("moe", "--batch", "4,8", "--trace", str(tmp_path / "good.npy"))
    assert refused.stderr == "oea-server: --trace=good.npy: 4 tokens per step, --batch asks for 8\n"
    recorded = trace.read(tmp_path / "good.npy")
    recorded.check(4, 128)
    with pytest.raises(OptionError, match="logits of 128 experts, the preset has 64"):
        recorded.check(4, 64)
