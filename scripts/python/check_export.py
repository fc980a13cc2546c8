"""Checks that a checkpoint written by Tunesmith is one: Transformers loads it and says the same.

    python scripts/python/check_export.py CHECKPOINT [--prompt TEXT ...] [--max-new-tokens 64]

Written for torch 2.13.0 and transformers 5.18.0. Loading must leave no weight missing or unexpected. Each prompt is
answered greedily in float32, once as a user's turn in the exported chat template and once continued as plain text, by
Transformers and by `tunesmith generate`: the tokens must be the same. Exits with 1 where they are not.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPTS = ["Once upon a time", "What is the capital of France?", "Tell me about a dog & a “cat”.\nBe brief."]


def ours(folder: str, prompt: str, raw: bool, limit: int) -> list[int]:
    command = ["npx", "tsx", "lib/cli/main.ts", "generate", folder, f"--prompt={prompt}", f"--max-new-tokens={limit}"]
    command += ["--json", "--precision=float32"] + (["--raw"] if raw else [])
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])["tokens"]


@torch.no_grad()
def theirs(model, tokenizer, prompt: str, raw: bool, limit: int) -> list[int]:
    if raw:
        inputs = tokenizer(prompt, return_tensors="pt")
    else:
        turn = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = inputs["input_ids"]
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit)
    return out[0, ids.shape[1] :].tolist()


def main(folder: str, prompts: list[str], limit: int) -> int:
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {kind: keys for kind, keys in report.items() if keys}
    if problems:
        print(f"loading: {problems}")
        return 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    failed = 0
    for prompt in prompts:
        for raw in [False, True]:
            a, b = theirs(model, tokenizer, prompt, raw, limit), ours(folder, prompt, raw, limit)
            failed += a != b
            verdict = f"same {len(a)} tokens" if a == b else f"DIFFERENT: Transformers {a}, ours {b}"
            print(f"{'raw ' if raw else 'chat'} {prompt!r}: {verdict}: {tokenizer.decode(a)[:80]!r}")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Does Transformers load a checkpoint and say the same?")
    parser.add_argument("checkpoint")
    parser.add_argument("--prompt", nargs="+", default=PROMPTS)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    options = parser.parse_args()
    sys.exit(main(str(pathlib.Path(options.checkpoint).resolve()), options.prompt, options.max_new_tokens))
