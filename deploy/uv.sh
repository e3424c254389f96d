#!/bin/sh
# Prints the path of a uv that can do the set-up: the user's own, or one that this script installs for the project alone.
set -eu
cd "$(dirname "$0")/.."

if command -v uv >/dev/null && uv pip install --help 2>/dev/null | grep -q -e --torch-backend; then
    command -v uv
    exit
fi
tools=$PWD/.instpt/tools
if [ ! -x "$tools/ready" ]; then
    python=${PYTHON:-python3}
    rm -rf "$tools"
    "$python" -m venv "$tools" >&2 || { echo "python3 has no venv module: install it (Debian: python3-venv), or uv" >&2; exit 1; }
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14' >&2
    ln -s bin/uv "$tools/ready" # last: an interrupted installation is begun anew
fi
echo "$tools/ready"
