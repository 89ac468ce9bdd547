# oea-server in SGLang's own image, for GPUs (the default target), or on the CPU and without CUDA's libraries:
#
#   docker build -t oea-server:0.2.0 --build-arg GIT_COMMIT="$(git rev-parse HEAD)" .
#   docker build -t oea-server:0.2.0-cpu --build-arg GIT_COMMIT="$(git rev-parse HEAD)" --target cpu .
#
# A tag can be moved, a digest cannot: deploy/docker/digests.sh writes the digests of both bases behind their tags.
# They are not there yet: no registry was at hand.
#
# No heredocs, cache mounts or "# syntax=" line: the builder from before BuildKit builds this as well. That one
# makes the CPU stages on its way to the GPU's; BuildKit leaves them out.
ARG BASE_IMAGE=lmsysorg/sglang:v0.5.23
ARG CPU_BASE_IMAGE=python:3.11-slim-bookworm


# Our wheel and the demo model's, and an init for both images.
FROM ${CPU_BASE_IMAGE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends 'tini=0.19.0-*' \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY patches patches
COPY oea_server oea_server
ARG GIT_COMMIT=unknown
# `oea-server --version` and the metric oea_build_info read COMMIT. The wheel is built by the setuptools that is locked.
RUN printf '%s\n' "${GIT_COMMIT}" > oea_server/COMMIT \
 && python3 -m venv /opt/build \
 && sed -n '/^setuptools==/,/[^\\]$/p' constraints.txt > /opt/build/pins.txt \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement /opt/build/pins.txt \
 && /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
      ./oea_server/lab/demo/models


# SGLang with the CPU build of torch.
FROM ${CPU_BASE_IMAGE} AS cpu-sglang
RUN apt-get update \
 && apt-get install -y --no-install-recommends 'binutils=2.*' \
 && rm -rf /var/lib/apt/lists/*
# PyPI's torch for x86-64 is the CUDA build; PyTorch's own index has the other, by versions and not yet by hashes: it was
# not at hand.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_VERSION=2.14.1
ARG TORCHVISION_VERSION=0.29.2
# Fast experts (x86-64 with AVX-512 and bf16), made for one minor version of torch: another than the lock's, for check.sh.
ARG ZENTORCH_VERSION=
COPY constraints.txt deploy/docker/requirements-cpu.txt /pins/
RUN python3 -m venv /opt/uv \
 && sed -n '/^uv==/,/[^\\]$/p' /pins/constraints.txt > /pins/uv.txt \
 && /opt/uv/bin/pip install --no-cache-dir --require-hashes --requirement /pins/uv.txt \
 && python3 -m venv /opt/venv
ENV VIRTUAL_ENV=/opt/venv UV_NO_CACHE=1
# No dependencies but those that the lock names, and nothing built here: what builds would come without a hash.
RUN /opt/uv/bin/uv pip install --no-deps --no-build --index-url "${TORCH_INDEX}" \
      "torch==${TORCH_VERSION}" "torchvision==${TORCHVISION_VERSION}" \
 && /opt/uv/bin/uv pip install --no-deps --no-build --require-hashes --requirement /pins/requirements-cpu.txt \
 && if [ -n "${ZENTORCH_VERSION}" ]; then /opt/uv/bin/uv pip install --no-deps "zentorch==${ZENTORCH_VERSION}"; fi
# A GB that nothing reads here: Triton is imported but compiles nothing without a GPU (its debug symbols are 300 MB,
# NVIDIA's assembler and device libraries 370), and nobody builds or tests torch.
# Bytecode, because the root file system is read-only later: each process would compile all it imports in memory, and
# the server take a minute longer to start.
# (cd: WORKDIR takes no pattern, and Python's version is the base's.)
# hadolint ignore=DL3003
RUN cd /opt/venv/lib/python3*/site-packages \
 && strip --strip-unneeded triton/_C/libtriton.so \
 && rm -rf triton/backends/nvidia/bin triton/backends/nvidia/lib triton/backends/nvidia/include \
      torch/test torch/include \
 && find torch/bin -type f ! -name torch_shm_manager -delete \
 && { /opt/venv/bin/python -m compileall -q -j 0 . > /pins/not-compiled.txt || true; }


FROM ${CPU_BASE_IMAGE} AS cpu
ARG CPU_BASE_IMAGE
# /cache is of group 0 and its to write: OpenShift runs images under user ids of its own, all in that group.
RUN groupadd --gid 10001 oea \
 && useradd --uid 10001 --gid 10001 --home-dir /cache --no-create-home --shell /usr/sbin/nologin oea \
 && install -d -o 10001 -g 0 -m 0775 /cache
COPY --from=build /usr/bin/tini-static /usr/local/bin/tini
COPY --from=cpu-sglang /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY --from=build /dist /dist
COPY constraints.txt deploy/docker/install.py /dist/
RUN python3 /dist/install.py --pins /dist/constraints.txt /dist/*.whl
COPY deploy/docker/entrypoint.sh /usr/local/bin/oea-entrypoint
COPY deploy/docker/health.py /usr/local/bin/oea-health
# Everything that SGLang and its libraries write goes below /cache; HOME is for those that cannot be told.
ENV HOME=/cache \
    XDG_CACHE_HOME=/cache/xdg \
    HF_HOME=/cache/huggingface \
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TORCH_EXTENSIONS_DIR=/cache/torch-extensions \
    FLASHINFER_WORKSPACE_BASE=/cache/flashinfer \
    CUDA_CACHE_PATH=/cache/cuda \
    NUMBA_CACHE_DIR=/cache/numba \
    MPLCONFIGDIR=/cache/matplotlib \
    PYTHONUNBUFFERED=1
VOLUME /cache
WORKDIR /cache
USER 10001:10001
EXPOSE 30000
# /health generates a token and takes 1 to 20 seconds. Weights load for many minutes: failures count after an hour.
HEALTHCHECK --interval=30s --timeout=25s --start-period=60m --retries=3 CMD ["python3", "/usr/local/bin/oea-health"]
# tini, because SGLang ends itself by SIGKILL, which the kernel ignores from a PID 1: the container would hang. It
# passes SIGTERM to the server alone, which drains and then ends its schedulers (so no -g), and passes its status on.
ENTRYPOINT ["tini", "--", "oea-entrypoint"]
CMD []
# Last, so that a new commit does not remake the layers above.
ARG VERSION=0.2.0
ARG GIT_COMMIT=unknown
LABEL org.opencontainers.image.title="oea-server" \
      org.opencontainers.image.description="SGLang with batch-aware expert routing, on the CPU" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_COMMIT}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${CPU_BASE_IMAGE}"


FROM ${BASE_IMAGE} AS gpu
ARG BASE_IMAGE
USER 0
RUN groupadd --gid 10001 oea \
 && useradd --uid 10001 --gid 10001 --home-dir /cache --no-create-home --shell /usr/sbin/nologin oea \
 && install -d -o 10001 -g 0 -m 0775 /cache
COPY --from=build /usr/bin/tini-static /usr/local/bin/tini
COPY --from=build /dist /dist
COPY constraints.txt deploy/docker/install.py /dist/
RUN python3 /dist/install.py --pins /dist/constraints.txt /dist/*.whl
COPY deploy/docker/entrypoint.sh /usr/local/bin/oea-entrypoint
COPY deploy/docker/health.py /usr/local/bin/oea-health
ENV HOME=/cache \
    XDG_CACHE_HOME=/cache/xdg \
    HF_HOME=/cache/huggingface \
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TORCH_EXTENSIONS_DIR=/cache/torch-extensions \
    FLASHINFER_WORKSPACE_BASE=/cache/flashinfer \
    CUDA_CACHE_PATH=/cache/cuda \
    NUMBA_CACHE_DIR=/cache/numba \
    MPLCONFIGDIR=/cache/matplotlib \
    PYTHONUNBUFFERED=1
VOLUME /cache
WORKDIR /cache
USER 10001:10001
EXPOSE 30000
HEALTHCHECK --interval=30s --timeout=25s --start-period=60m --retries=3 CMD ["python3", "/usr/local/bin/oea-health"]
ENTRYPOINT ["tini", "--", "oea-entrypoint"]
CMD []
ARG VERSION=0.2.0
ARG GIT_COMMIT=unknown
LABEL org.opencontainers.image.title="oea-server" \
      org.opencontainers.image.description="SGLang with batch-aware expert routing" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_COMMIT}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
