#!/bin/sh
# Install one side of Gleaner into a folder of its own: `tree.sh SIDE DIR [TENSORFLOW]`, from the checkout's root.
# SIDE is device, edge, modelserver, gateway or cloud; what it needs is pinned in constraints/SIDE.txt.
# The edge has no TensorFlow, only its message files: from TENSORFLOW (a wheel, or a folder that it is installed in),
# else from the wheel that the cloud's pins name.
set -eu
side=$1
dir=$2
python=${PYTHON:-python3}
pip="$python -m pip --disable-pip-version-check --quiet"

$pip install --require-hashes --no-deps --target "$dir" --requirement "constraints/$side.txt"
rm -rf "$dir/bin"
$pip install --no-deps --no-build-isolation --target "$dir" .
[ "$side" = edge ] || exit 0

tensorflow=${3:-}
if [ -z "$tensorflow" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    awk '/^tensorflow==/ { on = 1 } on { print } on && !/\\$/ { exit }' constraints/cloud.txt >"$scratch/tensorflow.txt"
    $pip download --require-hashes --no-deps --dest "$scratch" --requirement "$scratch/tensorflow.txt"
    tensorflow=$(ls "$scratch"/tensorflow-*.whl)
fi
$python deploy/images/messages.py "$tensorflow" "$dir"
