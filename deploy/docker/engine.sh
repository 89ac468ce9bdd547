#!/usr/bin/env bash
# A Docker engine for check.sh on a Debian that has none: unpacked from Debian's packages, without a bridge, in the
# foreground. As root.
#
#   deploy/docker/engine.sh DIRECTORY      listens on DIRECTORY/docker.sock
#
# Its images live in OEA_ENGINE_DATA (default: /tmp/oea-docker) and stay there. STORAGE_DRIVER: overlay2; vfs works where
# the kernel has no overlayfs, and copies every layer whole.
set -euo pipefail
directory=$1
data=${OEA_ENGINE_DATA:-/tmp/oea-docker}
mkdir -p "$directory/packages" "$directory/engine" "$data"
(
    cd "$directory/packages"
    apt-get download --quiet docker.io containerd runc 2> /dev/null
    for package in *.deb; do dpkg-deb --extract "$package" "$directory/engine"; done
)
export PATH="$directory/engine/usr/bin:$directory/engine/usr/sbin:$PATH"
# DOCKER_RAMDISK: no pivot_root, which some sandboxes' root file systems refuse
export DOCKER_RAMDISK=1
exec dockerd --host "unix://$directory/docker.sock" --pidfile "$directory/dockerd.pid" \
    --data-root "$data" --exec-root "$directory/run" --storage-driver "${STORAGE_DRIVER:-overlay2}" \
    --iptables=false --ip6tables=false --bridge=none > "$directory/dockerd.log" 2>&1
