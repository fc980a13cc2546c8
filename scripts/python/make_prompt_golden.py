"""Prompt and completion as text: ids and loss mask as Transformers has them, for test/batch/prompt-golden.test.ts.

    python scripts/python/make_prompt_golden.py       # writes test/golden/data/prompt-completion.json

Made with Python 3.11, transformers 5.18.0, and the tokenizers of ../shared. The ids are those of prompt + completion
tokenised once (bos where the tokenizer adds it) and eos behind; the mask has every token that char_to_token gives for a
character of the completion, and eos.
"""

import json
import pathlib

from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENIZERS = ["llama3", "qwen3", "gpt2", "llama2", "minimind", "deepseek_v3"]
PAIRS = [
    ("Translate to German: house\n", "Haus"),
    ("Q: What is 2+2?\nA:", " 4"),
    ("Q: What is 2+2?\nA: ", "4"),
    ("The answer is forty-", "two."),
    ("import nu", "mpy as np\n"),
    ("1234567", "89012"),
    ("", "No prompt at all."),
    ("Emoji 😀👩‍👩‍👧 and 𝕏:", " 🎉🏽 done 𝕐"),
    ("ends in half an emoji of 👩‍", "👧 family"),
    ("日本語の", "テキストです。"),
    ("trailing spaces   ", "   leading spaces"),
    ("\n\n", "\n\nnewlines\n\n"),
    ("tabs\t\t", "\t\ttabs"),
    ("cafe", "\u0301 with a combining accent"),
    ("don", "'t stop"),
    ("A" * 300, "B" * 300),
]


def main():
    golden = {}
    for name in TOKENIZERS:
        # The class that its config names reads deepseek_v3 otherwise than its tokenizer.json; this one takes the file.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(ROOT.parent / "shared" / "tokenizers" / name)
        rows = []
        for prompt, completion in PAIRS:
            encoding = tokenizer(prompt + completion)
            ids = list(encoding["input_ids"])
            # Some post-processors add eos by themselves.
            if ids and ids[-1] == tokenizer.eos_token_id:
                ids.pop()
            mask = [0] * len(ids)
            for at in range(len(prompt), len(prompt) + len(completion)):
                token = encoding.char_to_token(at)
                if token is not None:
                    mask[token] = 1
            # A character cut into several tokens is found by its first: the rest up to the next one belongs to it.
            first = mask.index(1)
            mask = mask[:first] + [1] * (len(ids) - first)
            if tokenizer.eos_token_id is not None:
                ids.append(tokenizer.eos_token_id)
                mask.append(1)
            rows.append({"ids": ids, "prompt": first})
        golden[name] = rows
    out = {"pairs": PAIRS, "tokenizers": golden}
    path = ROOT / "test" / "golden" / "data" / "prompt-completion.json"
    path.write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
