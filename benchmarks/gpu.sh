#!/usr/bin/env bash
# What waits for a GPU, in one go: the routing natively, the graph tests, and the three benchmarks.
#   PYTHON=.venv/bin/python bash benchmarks/gpu.sh OUT        (not yet run on a GPU)
# SGLANG_FLAGS: more flags for the server. On a host with a trimmed SGLang, those of its notes.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${1:?usage: bash benchmarks/gpu.sh OUT}
LAYERS=${LAYERS:-8}
PORT=${PORT:-30000}
mkdir -p "$OUT"

"$PYTHON" -m pytest -q tests/gpu tests/unit/test_routing_reference.py tests/unit/test_routing_properties.py 2>&1 | tee "$OUT/tests.txt"
"$PYTHON" -m oea_server bench router --out "$OUT" 2>&1 | tee "$OUT/router.txt"
"$PYTHON" -m oea_server bench moe --preset qwen3-30b,qwen3-235b-tp8,qwen3-235b-ep8 --out "$OUT" 2>&1 | tee "$OUT/moe.txt"
"$PYTHON" -m oea_server bench moe --preset qwen3-30b --logits uniform --out "$OUT" 2>&1 | tee "$OUT/moe-uniform.txt"

MODEL=$("$PYTHON" -c "from oea_server.lab.demo.build import *; print(build(default_directory('qwen3-30b-$LAYERS-layers'), qwen3_30b($LAYERS)))")
# shellcheck disable=SC2086
"$PYTHON" -m oea_server serve --model-path "$MODEL" --port "$PORT" --max-running-requests 64 ${SGLANG_FLAGS:-} > "$OUT/server.log" 2>&1 &
SERVER=$!
trap 'kill "$SERVER" 2>/dev/null' EXIT
for _ in $(seq 300); do
    curl -sf "http://127.0.0.1:$PORT/health" > /dev/null && break
    kill -0 "$SERVER" || { tail -40 "$OUT/server.log"; exit 1; }
    sleep 1
done
"$PYTHON" -m oea_server bench serve --url "http://127.0.0.1:$PORT" --tokens 256 --out "$OUT" 2>&1 | tee "$OUT/serve.txt"
