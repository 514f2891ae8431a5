#!/bin/sh
# Make a virtual environment with pip in it: `deploy/venv.sh PYTHON DIR`.
# Debian ships Python without `ensurepip`; there, pip comes from Debian's own wheel package, without root.
set -eu
python=$1
venv=$2

"$python" - <<'CHECK' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Python: expected 3.11 or later, got {sys.version.split()[0]} (set PYTHON=python3.11)")
CHECK

rm -rf "$venv"
if "$python" -c 'import ensurepip, venv' 2>/dev/null && "$python" -m venv "$venv" 2>/dev/null; then
    exit 0
fi
echo "this Python has no ensurepip: taking pip from Debian's package python3-pip-whl"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    echo "set-up: expected Python with venv (sudo apt install python3-venv), got one without" >&2
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
