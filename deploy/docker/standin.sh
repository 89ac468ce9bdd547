#!/usr/bin/env bash
# A stand-in for python:3.11-slim-bookworm, for check.sh where Docker Hub cannot be reached: Debian 12 with its own
# Python 3.11, and this machine's certificates. As root; needs mmdebstrap.
#
#   deploy/docker/standin.sh TAG
set -euo pipefail
tag=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! docker image inspect "$tag-rootfs" > /dev/null 2>&1; then
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        bookworm "$work/rootfs.tar"
    docker import "$work/rootfs.tar" "$tag-rootfs"
    rm "$work/rootfs.tar"
fi
cp /etc/ssl/certs/ca-certificates.crt "$work"
cat > "$work/Dockerfile" <<END
FROM $tag-rootfs
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
END
docker build --tag "$tag" "$work"
