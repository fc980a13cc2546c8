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

say 'building native code'
node scripts/build-native.mjs
say 'building TypeScript'
npm run --silent build:ts
say 'done'
