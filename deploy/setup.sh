#!/usr/bin/env bash
# Creates .venv with everything pinned in deploy/requirements, the project itself (editable) and its byte code. Costs nothing when that is done.
#   INSTPT_EXTRA  cpu or gpu; by default what the machine has
#   VENV          the environment's folder; .venv by default
#   PYTHON        an interpreter or version for uv; by default one on the machine that the extra's packages support
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE VIRTUAL_ENV
venv=${VENV:-.venv}

if [ -z "${INSTPT_EXTRA:-}" ]; then
    INSTPT_EXTRA=cpu
    if [ -e /dev/nvidia0 ] || nvidia-smi -L >/dev/null 2>&1; then INSTPT_EXTRA=gpu; fi
fi
pins=deploy/requirements/$INSTPT_EXTRA.txt
[ -f "$pins" ] || { echo "INSTPT_EXTRA is '$INSTPT_EXTRA': say cpu or gpu" >&2; exit 2; }
# What an installation depends on; from [tool.dg] on, pyproject.toml only configures tools.
inputs=$({ cat deploy/setup.sh deploy/requirements/*.txt deploy/vllm-metadata/pyproject.toml && sed '/^\[tool\.dg\]/q' pyproject.toml; } | sha256sum)

# The state tells which environment lies there: another extra's, one of a folder since moved, an unfinished or a damaged one is made anew.
state=$venv/.setup
whose="$INSTPT_EXTRA $PWD"
current() { cat "$state" 2>/dev/null || echo "$whose"; } # without a state it is somebody's own: completed in place
usable() { "$venv/bin/python" -c '' 2>/dev/null; }
intact() { for package in dagster torch vllm; do ls "$venv"/lib/python*/site-packages/$package/__init__.py >/dev/null 2>&1 || return 1; done; }
complete() { [ "$(current)" = "$whose ${inputs%% *}" ] && usable && intact; }
if complete; then exit 0; fi

start=$SECONDS
mkdir -p .instpt
exec 9>.instpt/setup.lock
if command -v flock >/dev/null; then
    flock 9
    if complete; then exit 0; fi # by the one that was waited for
fi
uv=$(deploy/uv.sh)

found=$(current)
case $found in "$whose"*unfinished) renew=yes ;; "$whose") renew= ;; "$whose"*) intact && renew= || renew=yes ;; *) renew=yes ;; esac
if [ -n "$renew" ] || ! usable; then
    supported='>=3.11,<3.14'
    [ "$INSTPT_EXTRA" = cpu ] || supported='>=3.11,<3.13' # flashinfer needs a cuda-python that has no later wheels
    "$uv" venv --quiet --no-project --clear --python "${PYTHON:-$supported}" "$venv"
fi
echo "$whose unfinished" >"$state"
echo "Setting up $venv ($INSTPT_EXTRA, $("$venv/bin/python" -V))"

install() { "$uv" pip install --python "$venv/bin/python" "$@"; }

# uv does not read pip's variables for a package source that the machine has configured.
sources=()
for folder in ${PIP_FIND_LINKS:-}; do sources+=(--find-links "$folder"); done
[ -z "${PIP_INDEX_URL:-}" ] || sources+=(--default-index "$PIP_INDEX_URL")

project=(--editable .)
if [ "$INSTPT_EXTRA" = cpu ]; then
    project+=(deploy/vllm-metadata)
    torch=$(grep '^torch==' "$pins")
    cpu_build() { install --quiet --dry-run --no-deps "$@" "$torch+cpu" 2>/dev/null; }
    if cpu_build --no-index "${sources[@]}"; then
        : # it lies in a wheel folder, or is installed
    elif UV_HTTP_RETRIES=1 UV_HTTP_TIMEOUT=15 cpu_build --torch-backend cpu; then
        echo "$torch comes from PyTorch's CPU index"
        sources+=(--torch-backend cpu)
    else
        echo "No CPU build of $torch is within reach (PIP_FIND_LINKS, PyTorch's index): taking PyPI's, which brings gigabytes of CUDA libraries"
    fi
    sources+=(--override deploy/requirements/overrides-cpu.txt)
fi

install --quiet "${sources[@]}" --requirements "$pins" --requirements deploy/requirements/dev.txt
install --quiet --no-deps --no-build-isolation "${project[@]}"

echo "Compiling byte code (once, about two minutes)" # or every process compiles what it imports: torch and vllm 39 s against 14
"$venv/bin/python" -m compileall -q -j 0 "$venv"/lib/python*/site-packages >/dev/null || true # some packages carry files that are no Python

echo "$whose ${inputs%% *}" >"$state"
echo "Set up in $((SECONDS - start)) s"
