#!/bin/sh
# Install the packages of one side of Gleaner into a folder: `packages.sh SIDE DIR [ARCHITECTURE]`, run in the root of
# the checkout. They are pinned in constraints/SIDE.txt. ARCHITECTURE (amd64 or arm64) is this machine's unless given;
# for another one its wheels are unpacked, and nothing of them is run.
set -eu
side=$1
dir=$2
arch=${3:-}
here=$(dirname "$0")
python=${PYTHON:-python3}

case $arch in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
"") machine=$(uname -m) ;;
*)
    echo "packages.sh: the architecture '$arch' is not known: use amd64 or arm64" >&2
    exit 2
    ;;
esac
set --
if [ "$machine" != "$(uname -m)" ]; then
    # pip knows which wheels fit this machine, but has to be told each kind that fits another one.
    set -- --only-binary=:all: --implementation cp --python-version 3.11
    for tag in manylinux_2_36 manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux_2_27 manylinux_2_26 \
        manylinux_2_24 manylinux_2_17 manylinux2014; do
        set -- "$@" --platform "${tag}_$machine"
    done
fi
"$python" -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps --no-compile "$@" \
    --target "$dir" --requirement "constraints/$side.txt"
rm -rf "$dir/bin"
"$python" "$here/prune.py" "$dir"
"$python" "$here/symbols.py" "$dir"
