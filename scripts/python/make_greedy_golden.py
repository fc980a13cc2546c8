"""What Transformers generates greedily with stories260K: test/golden/greedy.json.

    python scripts/python/make_greedy_golden.py

Written for torch 2.13.0 and transformers 5.18.0; one thread, float32. Each of 20 prompts is continued by up to 64 tokens, a third
of them with a repetition penalty. `margin` is the smallest difference between the two best scores on the way: where it
is far above float32's rounding, another right implementation must choose the same tokens.
"""

import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATH = ROOT / "test" / "golden" / "greedy.json"
STORIES = ROOT.parent / "shared" / "models" / "stories260K"

PROMPTS = [
    "Once upon a time",
    "The dog",
    "Lily and Tom went to the park.",
    "One day, a little bird",
    "There was a big tree",
    "Mom said,",
    '"Can I play with you?" asked',
    "The sun was",
    "Tom had a red ball. He",
    "In the box there was",
    "A small cat named Sam",
    "They were very happy because",
    "It was cold and",
    "The old man looked at the sky and",
    "Ben wanted to eat",
    "She ran to her",
    "Once there lived a frog who could not",
    "The boat was on the water. A fish",
    "Anna saw a",
    "At night, the moon",
]


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    cases = []
    for index, prompt in enumerate(PROMPTS):
        penalty = 1.3 if index % 3 == 2 else 1.0
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=64,
            repetition_penalty=penalty,
            return_dict_in_generate=True,
            output_scores=True,
        )
        best = torch.stack(out.scores)[:, 0].topk(2).values
        margin = (best[:, 0] - best[:, 1]).min().item()
        tokens = out.sequences[0, ids.shape[1] :].tolist()
        print(f"{prompt!r}: {len(tokens)} tokens, margin {margin:.2e}")
        assert margin > 1e-4, "too close to call: use another prompt"
        case = {"prompt": prompt, "promptIds": ids[0].tolist(), "tokens": tokens, "margin": margin}
        cases.append(case | ({"repetitionPenalty": penalty} if penalty != 1 else {}))
    PATH.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{PATH}: {PATH.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
