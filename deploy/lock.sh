#!/usr/bin/env bash
# Resolve deploy/cpu.lock and deploy/cuda.lock anew from pyproject.toml. Run by `make lock`.
set -euo pipefail
cd "$(dirname "$0")/.."
# Python 3.11 is the oldest that is supported; --universal makes the locks good for newer ones too.
common=(--quiet --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links
  --extra hub --extra service --extra traces --extra trainer --extra ui --group dev pyproject.toml)
torch_source=()
for folder in ${PIP_FIND_LINKS:-}; do torch_source+=(--find-links "$folder"); done
[ ${#torch_source[@]} != 0 ] || torch_source=(--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
.venv/bin/uv pip compile "${common[@]}" "${torch_source[@]}" --override deploy/overrides.txt deploy/cpu.in -o deploy/cpu.lock
.venv/bin/uv pip compile "${common[@]}" deploy/cuda.in -o deploy/cuda.lock
