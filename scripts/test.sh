#!/usr/bin/env bash
# Every check of the project: lint, native tests, TypeScript tests. All of them run even when one fails; the exit code
# and the last lines say what became of them and how many tests were skipped. `npm test`, after `npm run setup`.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/test
export TUNESMITH_SKIPPED="$PWD/build/test/skipped.txt"
rm -f "$TUNESMITH_SKIPPED"
failed=()

stage() {
  local name="$1"
  shift
  printf '\n== %s ==\n' "$name"
  "$@" || failed+=("$name")
}

# -V shows each test program's own output; ctest fails with --no-tests=error where the programs were not built.
native() {
  ctest --test-dir build/cmake -V --no-tests=error >build/test/native.log 2>&1
  local status=$?
  if [ $status -eq 0 ]; then grep -E '\[doctest\]|tests passed|Skipped' build/test/native.log; else cat build/test/native.log; fi
  return $status
}

# llama.cpp, to which the tests of GGUF show exported models; without its optional packages for GPUs.
llama_cpp() {
  [ -d test/gguf/llama-cpp/node_modules/node-llama-cpp ] ||
    npm install --prefix test/gguf/llama-cpp --no-package-lock --ignore-scripts --omit=optional --no-audit --no-fund
}

stage 'llama.cpp for the tests' llama_cpp
stage 'lint' npm run --silent lint
stage 'native tests' native
stage 'TypeScript tests' npx mocha --reporter scripts/test-reporter.mjs 'test/**/*.test.ts'

# Tests skipped by ctest ("***Skipped") and inside a doctest program ("| 2 skipped"); whole titles for mocha's.
native_skipped=$(awk '/\*\*\*Skipped/ { n++ } /\[doctest\] test cases:/ { if (match($0, /[0-9]+ skipped/)) n += substr($0, RSTART) + 0 } END { print n + 0 }' \
  build/test/native.log)
[ -f "$TUNESMITH_SKIPPED" ] || failed+=('TypeScript tests did not finish')
touch "$TUNESMITH_SKIPPED"
gpu=$(grep -c 'GPU' "$TUNESMITH_SKIPPED")
other=$(($(grep -vc 'GPU' "$TUNESMITH_SKIPPED") + native_skipped))

printf '\n'
[ ! -s "$TUNESMITH_SKIPPED" ] || sed 's/^/skipped test: /' "$TUNESMITH_SKIPPED"
printf 'skipped: %d (and %d that need a GPU)\n' "$other" "$gpu"
if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "$(IFS=,; echo "${failed[*]}")"
  exit 1
fi
printf 'All checks passed.\n'
