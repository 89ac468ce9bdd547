#!/bin/sh
# What is installed in an image's Python, as CycloneDX, to stdout. Needs `make .venv-audit/.ready`, whose tool looks at the
# image from inside, without becoming part of it.
#
#   deploy/docker/sbom.sh oea-server:0.2.0-cpu > sbom.json
set -eu
cd "$(dirname "$0")/../.."
tool=$(.venv-audit/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
exec docker run --rm --network none --volume "$tool:/tool:ro" "$1" python3 -c '
import runpy, sys
sys.path.append("/tool")  # last: the image has what it has
sys.argv = ["cyclonedx-py", "environment", "--no-validate", sys.executable]
runpy.run_module("cyclonedx_py", run_name="__main__")'
