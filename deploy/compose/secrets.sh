#!/bin/sh
# Makes what compose.yaml keeps secret, each a file of its own beside this one. One that is there stays as it is.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets # nobody else on this machine gets further
for name in admin-key api-key grafana-password; do
    if [ ! -s "secrets/$name" ]; then
        od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$name"
    fi
    chmod 444 "secrets/$name" # a container sees its own files alone, and reads them as a user that has no name here
done
