#!/bin/sh
# Install one side of Gleaner into a folder: `tree.sh SIDE DIR [TENSORFLOW]`, run in the root of the checkout.
# SIDE is device, edge, modelserver, gateway or cloud; its dependencies are pinned in constraints/SIDE.txt.
# The edge needs only the message files of TensorFlow: they are copied from TENSORFLOW (a wheel, or a folder where it is
# installed), by default from the wheel pinned for the cloud.
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
