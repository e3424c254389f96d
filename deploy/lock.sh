#!/usr/bin/env bash
# Compiles the pinned, URL-free requirements of each extra and of the dev tools from pyproject.toml.
# Versions already in the files stay; `deploy/lock.sh --upgrade` takes the newest ones.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(deploy/uv.sh)

# cpu.txt must come from a CPU build of torch, or it would list the CUDA libraries of PyPI's build.
torch_source=(--torch-backend cpu)
[ -z "${PIP_FIND_LINKS:-}" ] || torch_source=(--find-links "$PIP_FIND_LINKS")

compile() { # compile FILE ARGUMENTS...
    local output=deploy/requirements/$1
    shift
    "$uv" pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file "$output" "$@"
}

# In the file stands the release; which build of it is the set-up's choice.
sed -i -E 's/^torch==[0-9.]+$/&+cpu/' deploy/requirements/cpu.txt
compile cpu.txt pyproject.toml --extra cpu --override deploy/requirements/overrides-cpu.txt "${torch_source[@]}" "$@"
sed -i 's/^\(torch==.*\)+cpu$/\1/' deploy/requirements/cpu.txt
compile gpu.txt pyproject.toml --extra gpu "$@"
compile dev.txt --group dev --constraint deploy/requirements/cpu.txt --constraint deploy/requirements/gpu.txt "$@"
