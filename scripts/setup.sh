#!/usr/bin/env bash
# From a fresh Debian 12 with Node 20 to a built project: apt packages, npm packages, native code, TypeScript.
# Looks before it acts, so that the second time costs seconds. `npm run setup`; needs no node_modules to start.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
  fail "Node 20.19 or newer is needed, this is $(node --version): https://nodejs.org"

# What the native build and the checks need; each line: the Debian package.
packages=(
  g++
  make
  cmake
  ninja-build
  libdnnl-dev  # oneDNN: the matmuls
  libhwy-dev   # Highway: SIMD with dispatch at run time
  doctest-dev  # native tests
  clang-format # npm run lint
)

# Unpacks cuBLAS for the CUDA backend (below).
if command -v nvcc >/dev/null && ! python3 -m pip --version >/dev/null 2>&1; then packages+=(python3-pip); fi

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  [ "${TUNESMITH_SKIP_APT:-}" = 1 ] || fail "this is not a Debian system (no apt-get), so nothing can be installed for you." \
    "Install what corresponds to: ${packages[*]}" \
    "and run again with TUNESMITH_SKIP_APT=1."
else
  missing=()
  for package in "${packages[@]}"; do installed "$package" || missing+=("$package"); done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    sudo=()
    if [ "$(id -u)" -ne 0 ]; then
      command -v sudo >/dev/null || fail "these packages are missing, and installing them needs root or sudo:" \
        "  apt-get install ${missing[*]}"
      if [ -t 0 ]; then sudo=(sudo); else sudo=(sudo -n); fi # without a terminal nobody can type a password
    fi
    "${sudo[@]}" apt-get update -q &&
      "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" ||
      fail "the packages could not be installed. Install them yourself and run again:" "  apt-get install ${missing[*]}"
  fi
fi

if ! node scripts/modules-current.mjs; then
  say 'installing npm packages'
  npm ci --no-audit --no-fund
fi

# The CUDA backend is built wherever nvcc 13 or newer is; TUNESMITH_CMAKE_TUNESMITH_CUDA=ON or OFF decides otherwise. Its matmuls need
# cuBLASLt: of the toolkit, or of pip's package, which is unpacked into build/cublas.
cublas=nvidia-cublas==13.1.1.3
if command -v nvcc >/dev/null && nvcc --version | grep -E 'release (1[3-9]|[2-9][0-9])\.' >/dev/null; then
  : "${TUNESMITH_CMAKE_TUNESMITH_CUDA:=ON}"
elif [ "${TUNESMITH_CMAKE_TUNESMITH_CUDA:-OFF}" = ON ]; then
  fail "TUNESMITH_CMAKE_TUNESMITH_CUDA is ON, but nvcc 13 or newer is not in PATH: install the CUDA 13 toolkit, or set it to OFF."
fi
export TUNESMITH_CMAKE_TUNESMITH_CUDA="${TUNESMITH_CMAKE_TUNESMITH_CUDA:-OFF}"
if [ "$TUNESMITH_CMAKE_TUNESMITH_CUDA" = ON ]; then
  toolkit=$(nvcc --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
  if [ ! -f "$toolkit/include/cublasLt.h" ] && [ ! -f build/cublas/nvidia/cu13/include/cublasLt.h ]; then
    say "unpacking $cublas into build/cublas"
    rm -rf build/cublas build/cublas.part
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target build/cublas.part "$cublas" ||
      fail "the CUDA toolkit has no cublasLt.h, and pip could not install $cublas. Install cuBLAS, or set" \
        "TUNESMITH_CMAKE_TUNESMITH_CUDA=OFF to build without the CUDA backend."
    mv build/cublas.part build/cublas
  fi
fi

say 'building native code'
node scripts/build-native.mjs
say 'building TypeScript'
npm run --silent build:ts
say 'done'
