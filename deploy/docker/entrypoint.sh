#!/bin/sh
# What the container runs: SGLang's arguments and ours, a command of oea-server, or any other program.
#
#   docker run IMAGE                                   the demo model
#   docker run IMAGE --model-path M --oea-k0 4 …       oea-server serve, on all interfaces
#   docker run IMAGE doctor --model-path M             any command of oea-server
#   docker run IMAGE --version
#   docker run IMAGE python3 -c 'import sglang'        any program
#
# It ends in exec each time, so that signals reach the server and its status the engine.
set -eu

if [ "$#" -eq 0 ]; then
    echo "oea-server: no model given: serving the demo model, 22 MB trained on manual pages and Python"
    echo "oea-server: a real one: docker run --gpus all --shm-size 16g -p 127.0.0.1:30000:30000 -v oea-cache:/cache IMAGE --model-path Qwen/Qwen3-30B-A3B"
    set -- serve
fi

case "$1" in
    --version | --help | -h) exec oea-server "$@" ;;
    -*) set -- serve "$@" ;;
esac

case "$1" in
    # all of oea-server's commands; before the programs, some of which have the same names
    serve | doctor | demo | bench | eval | calibrate | qualify | config | patch) ;;
    *) exec "$@" ;;
esac

if [ "$1" = serve ]; then
    # SGLang listens on 127.0.0.1 by default, where nobody outside the container reaches it. At the end: SGLang takes
    # a first word without a dash for the model.
    host="--host 0.0.0.0"
    for word; do
        case "$word" in
            --host | --host=*) host="" ;;
        esac
    done
    # shellcheck disable=SC2086  # two words, or none
    set -- "$@" $host
fi
exec oea-server "$@"
