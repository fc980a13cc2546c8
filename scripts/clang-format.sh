#!/usr/bin/env bash
# clang-format over every C++ and CUDA file that git tracks or could track, with the given flags.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files -co --exclude-standard '*.h' '*.cc' '*.cu' '*.cuh' | while read -r f; do [ -f "$f" ] && echo "$f"; done |
  xargs -r clang-format "$@"
