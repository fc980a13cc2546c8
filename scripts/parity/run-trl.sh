#!/usr/bin/env bash
# Parity with TRL: 50 float32 steps of SFTTrainer and of ours, three variants, compared step by step (docs/parity.md).
#
#     PYTHON=.venv/bin/python scripts/parity/run-trl.sh [OUT]
#
# PYTHON needs torch 2.13.0, transformers 5.18.0 and trl 1.13.0. OUT keeps the recorded runs [a temporary folder].
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-$(mktemp -d)}
"${PYTHON:-python3}" scripts/python/trl_parity.py "$out"
npx tsx scripts/parity/trl.ts "$out"
