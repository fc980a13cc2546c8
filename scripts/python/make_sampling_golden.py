"""What Transformers' logits processors leave of a distribution: test/golden/sampling.json.

    python scripts/python/make_sampling_golden.py

Written for torch 2.13.0 and transformers 5.18.0. Each case is a list of logits (float32), the ids that came before, and
options as lib/generate/sampling.ts has them; `probabilities` is what Transformers draws from. The processors are those
that GenerationMixin itself puts together for these options, so that their order is Transformers' too. They run on
float64 scores, which have the accuracy of ours; ties are left out, because torch.sort does not order them.
"""

import json
import pathlib

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

PATH = pathlib.Path(__file__).resolve().parents[2] / "test" / "golden" / "sampling.json"

OPTIONS = [
    {"temperature": 1.0},
    {"temperature": 0.7},
    {"temperature": 2.5, "topK": 5},
    {"temperature": 1.0, "topK": 1},
    {"temperature": 1.0, "topK": 1000},
    {"temperature": 1.0, "topP": 0.9},
    {"temperature": 0.5, "topP": 0.3},
    {"temperature": 1.0, "topP": 0.0001},
    {"temperature": 1.3, "minP": 0.1},
    {"temperature": 1.0, "minP": 1.0},
    {"temperature": 1.0, "repetitionPenalty": 1.5},
    {"temperature": 1.0, "repetitionPenalty": 0.6},
    {"temperature": 0.8, "topK": 20, "topP": 0.8, "minP": 0.05, "repetitionPenalty": 1.2},
    {"temperature": 1.8, "topK": 12, "topP": 0.95, "minP": 0.2, "repetitionPenalty": 1.1},
]
NAMES = {"topK": "top_k", "topP": "top_p", "minP": "min_p", "repetitionPenalty": "repetition_penalty"}


def probabilities(model: LlamaForCausalLM, logits: torch.Tensor, seen: list[int], options: dict) -> list[float]:
    named = {NAMES.get(name, name): value for name, value in options.items()}
    config = GenerationConfig(**({"do_sample": True, "top_k": 0} | named))
    processors = model._get_logits_processor(config, input_ids_seq_length=len(seen))
    scores = processors(torch.tensor([seen]), logits.double()[None])
    return torch.softmax(scores, dim=-1)[0].tolist()


def main() -> None:
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    generator = torch.Generator().manual_seed(1)
    cases = []
    for index, options in enumerate(OPTIONS):
        size = [37, 61][index % 2]
        logits = 3 * torch.randn(size, generator=generator)
        assert len(set(logits.tolist())) == size
        seen = torch.randint(0, size, (9,), generator=generator).tolist()
        found = probabilities(model, logits, seen, options)
        kept = sum(value > 0 for value in found)
        print(f"{options}: {kept} of {size} tokens")
        cases.append({"logits": logits.tolist(), "seen": seen, "options": options, "probabilities": found})
    PATH.write_text(json.dumps(cases) + "\n")
    print(f"{PATH}: {PATH.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
