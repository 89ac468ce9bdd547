#!/usr/bin/env bash
# Runs parts of the test command one after the other, all of them whatever fails, and says how long each took.
# Arguments: Makefile's targets, and variables for it as NAME=VALUE.
set -uo pipefail
targets=() variables=()
for word in "$@"; do
    case $word in *=*) variables+=("$word") ;; *) targets+=("$word") ;; esac
done
took=() failed=0
for target in "${targets[@]}"; do
    start=$SECONDS result=passed
    echo "==> $target"
    "${MAKE:-make}" --no-print-directory "$target" "${variables[@]}" || result=FAILED failed=1
    took+=("$(printf '%-14s %s %5d s' "$target" "$result" $((SECONDS - start)))")
done
printf '%s\n' "" "${took[@]}" "$(printf '%-14s %d:%02d minutes' together $((SECONDS / 60)) $((SECONDS % 60)))"
exit $failed
