"""Saves model folders with this package and checks that Transformers loads them with identical tensors and generation.

Run in the development environment, from the repository: python scripts/python/check_checkpoint.py MODEL [MODEL ...]
A MODEL without a tokenizer gets the tokenizer of the first. Nothing is left behind.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

ROOT = Path(__file__).parents[2]
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
# dtype and limit of a shard in bytes
VARIANTS = [("float32", 5_000_000_000), ("float32", 200_000), ("bfloat16", 300_000), ("float16", 5_000_000_000)]


def load(folder, dtype):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[problem], (folder, problem, info[problem])
    return model.eval()


def check(source, tokenizer, dtype, shard_bytes):
    with tempfile.TemporaryDirectory() as parent:
        output = Path(parent) / "out"
        command = ["npx", "tsx", "test/checkpoint/resave.ts", source, str(output), dtype, str(shard_bytes), tokenizer, TEMPLATE]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        kind = getattr(torch, dtype)
        ours, theirs = load(output, "auto"), load(source, kind)
        assert ours.dtype == kind, ours.dtype
        expected = theirs.state_dict()
        assert ours.state_dict().keys() == expected.keys()
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        assert torch.equal(ours.model.rotary_emb.inv_freq, theirs.model.rotary_emb.inv_freq)
        differing = {k for k, v in ours.config.to_dict().items() if theirs.config.to_dict().get(k, v) != v}
        assert differing <= {"dtype", "_name_or_path", "eos_token_id"}, differing
        prompt = torch.tensor([[1, 103, 107, 61]]) % ours.config.vocab_size
        mask = torch.ones_like(prompt)
        greedy = [m.generate(prompt, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0) for m in (ours, theirs)]
        assert torch.equal(*greedy)
        made = AutoTokenizer.from_pretrained(output)
        original = AutoTokenizer.from_pretrained(tokenizer)
        text = "Once upon a time, there was a cat.\n"
        assert made(text)["input_ids"] == original(text)["input_ids"]
        messages = [dict(role="user", content="Hi"), dict(role="assistant", content="Hello")]
        assert made.apply_chat_template(messages, tokenize=False) == original.apply_chat_template(messages, chat_template=TEMPLATE, tokenize=False)
        assert "chat_template" not in json.loads((output / "tokenizer_config.json").read_text())
        assert GenerationConfig.from_pretrained(output).eos_token_id == 2
        files = sorted(path.name for path in output.glob("*.safetensors"))
        print(f"{source}: {dtype}, {len(files)} file(s), {len(expected)} tensors: identical")


def main():
    warnings.simplefilter("ignore")
    models = sys.argv[1:]
    for source in models:
        tokenizer = source if (Path(source) / "tokenizer.json").exists() else models[0]
        for dtype, shard_bytes in VARIANTS:
            check(source, tokenizer, dtype, shard_bytes)


if __name__ == "__main__":
    main()
