#!/bin/sh
# Writes behind the tag of every image that others make the digest that it has today: name:tag@sha256:… Where it is there
# already, it is read anew. Needs docker buildx and the registries; `git diff` shows what changed.
set -eu
cd "$(dirname "$0")/../.."
files="Dockerfile deploy/compose/compose.yaml deploy/k8s/components/router/Dockerfile"
# shellcheck disable=SC2086  # three words
grep -hoE '(lmsysorg/sglang|python|prom/prometheus|grafana/grafana):[A-Za-z0-9._-]+' $files | sort -u | while read -r image; do
    digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')
    case $digest in sha256:*) ;; *) echo "$image: no digest: $digest" >&2 && exit 1 ;; esac
    echo "$image@$digest"
    sed -i -E "s#([ =])$image(@sha256:[0-9a-f]+)?\$#\\1$image@$digest#" $files
done
