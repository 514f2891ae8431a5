#!/bin/sh
# Create a virtual environment with pip: `deploy/venv.sh PYTHON DIR`.
# Debian's Python has no `ensurepip`; there, pip comes from Debian's package python3-pip-whl, without root.
set -eu
python=$1
venv=$2

"$python" - <<'CHECK' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Python {sys.version.split()[0]} is too old: Gleaner needs 3.11 or later; set PYTHON=python3.11")
CHECK

rm -rf "$venv"
if "$python" -c 'import ensurepip, venv' 2>/dev/null && "$python" -m venv "$venv" 2>/dev/null; then
    exit 0
fi
echo "this Python has no ensurepip: downloading pip from Debian's package python3-pip-whl"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    echo "cannot create a virtual environment: this Python has no venv; run: sudo apt install python3-venv" >&2
    exit 1
}
rm -rf "$venv"
"$python" -m venv --without-pip "$venv"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
own="-o Dir::State=$work/state -o Dir::Cache=$work/cache"
(
    cd "$work"
    apt-get download python3-pip-whl >/dev/null 2>&1 || {
        apt-get $own update >/dev/null
        apt-get $own download python3-pip-whl >/dev/null
    }
    dpkg-deb --extract python3-pip-whl_*.deb .
)
wheel=$(ls "$work"/usr/share/python-wheels/pip-*.whl)
PYTHONPATH=$wheel "$venv/bin/python" -m pip install --disable-pip-version-check --quiet "$wheel"
