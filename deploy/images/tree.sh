#!/bin/sh
# Install one side of Gleaner with its packages into a folder: `tree.sh SIDE DIR`, run in the root of the checkout.
set -eu
here=$(dirname "$0")
sh "$here/packages.sh" "$1" "$2"
sh "$here/project.sh" "$2"
