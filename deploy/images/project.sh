#!/bin/sh
# Install Gleaner itself into a folder: `project.sh DIR`, run in the root of the checkout.
set -eu
dir=$1
here=$(dirname "$0")
python=${PYTHON:-python3}

"$python" -m pip --disable-pip-version-check --quiet install --no-deps --no-compile --no-build-isolation --target "$dir" .
rm -rf "$dir/bin"
"$python" "$here/prune.py" "$dir"
