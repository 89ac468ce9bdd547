#!/usr/bin/env bash
# Build the image, both targets, run them with a real Docker engine, and keep what came out in check.txt:
#
#   deploy/docker/check.sh                                  with the true bases; 60 GB of disk, and downloads
#   deploy/docker/check.sh --standin torch-2.13.0+cpu-cp311-….whl --engine      without Docker Hub, as root:
#
# --engine   starts an engine of its own from Debian's packages (engine.sh), and ends it; else the one of DOCKER_HOST
# --standin  where the bases and PyTorch's index cannot be reached: Debian for python:3.11-slim, that wheel for torch,
#            and SGLang on top of both for lmsysorg/sglang. Our layers are the same.
#
# For a stand-in with another torch: TORCHVISION_VERSION, ZENTORCH_VERSION. All of it takes 15 minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
version=0.2.0
work=$(mktemp -d)
children=()
finish() {
    for child in "${children[@]}"; do
        kill "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    done
    umount "$work"/run/netns/* 2> /dev/null || true # the engine's, where it was ours
    rm -rf "$work"
}
trap finish EXIT

wheel=""
while [ "$#" -gt 0 ]; do
    case "$1" in
        --engine)
            export DOCKER_HOST="unix://$work/docker.sock"
            "$here/engine.sh" "$work" &
            children+=("$!")
            ;;
        --standin)
            wheel=$(realpath "$2")
            shift
            ;;
        *)
            sed -n '2,/^set /p' "$0" | grep '^#'
            exit 2
            ;;
    esac
    shift
done
for _ in $(seq 60); do
    docker version > /dev/null 2>&1 && break
    sleep 1
done
docker version > /dev/null

common=(--build-arg "GIT_COMMIT=$(git -C "$root" describe --always --dirty --abbrev=12 '--exclude=*')")
gpu=()
note="The bases are the Dockerfile's."
if [ -n "$wheel" ]; then
    # torch-2.13.0+cpu-cp311-… -> 2.13.0
    torch=$(basename "$wheel" | sed 's/^torch-\([0-9.]*\).*/\1/')
    torchvision=${TORCHVISION_VERSION:-0.28.0}
    zentorch=${ZENTORCH_VERSION:-2.13.0.2}
    echo "==> stand-ins: Debian for python:3.11-slim-bookworm, an index with torch $torch"
    "$here/standin.sh" oea-standin-python
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --dest "$work/wheels" \
        "torchvision==$torchvision"
    python3 "$here/standin.py" "$wheel" "$work"/wheels/torchvision-*.whl "$work/index"
    python3 -m http.server --bind 127.0.0.1 --directory "$work/index" 31790 > "$work/index.log" 2>&1 &
    children+=("$!")
    sleep 1
    kill -0 "$!" || { cat "$work/index.log"; exit 1; } # the port is taken
    common+=(
        --network host
        --build-arg CPU_BASE_IMAGE=oea-standin-python
        --build-arg TORCH_INDEX=http://127.0.0.1:31790
        --build-arg "TORCH_VERSION=$torch"
        --build-arg "TORCHVISION_VERSION=$torchvision"
        --build-arg "ZENTORCH_VERSION=$zentorch"
    )
    gpu=(--build-arg BASE_IMAGE=oea-standin-sglang)
    note="Stand-ins for the bases: Debian 12 for python:3.11-slim-bookworm; SGLang from PyPI with torch $torch (CPU build) on \
top of it for lmsysorg/sglang, so the size of the GPU target says nothing. torchvision without its compiled operators."
fi

build() {
    echo "==> building $*"
    docker build "${common[@]}" "$@" "$root"
}
build --target cpu --tag "oea-server:$version-cpu"
if [ -n "$wheel" ]; then
    build --target cpu-sglang --tag oea-standin-sglang-layers
    # a system like SGLang's image: its python3 comes first
    # shellcheck disable=SC2016  # the variable is the Dockerfile's
    printf 'FROM oea-standin-sglang-layers\nENV PATH=/opt/venv/bin:$PATH\n' | docker build --tag oea-standin-sglang -
fi
build "${gpu[@]}" --tag "oea-server:$version"

echo "==> running them"
python3 "$here/check.py" --note "$note" "oea-server:$version-cpu" "oea-server:$version"
