"""Writes test/golden/rope.json: inverse rotary frequencies as Transformers computes them, for the rope types we support.

Run in the development environment: python scripts/python/make_rope_golden.py
"""

import json
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LLAMA31 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
LLAMA32 = dict(LLAMA31, factor=32.0)
SMALL = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=2.0, original_max_position_embeddings=64)

# (head_dim, fields of config.json): old and new spelling, with theta inside and outside
CASES = [
    (8, dict(rope_theta=10000.0)),
    (64, dict()),
    (64, dict(rope_theta=100000)),
    (128, dict(rope_parameters=dict(rope_type="default", rope_theta=500000.0))),
    (256, dict(rope_theta=1e6)),
    (64, dict(rope_theta=10000.0, rope_scaling=dict(type="linear", factor=2.0))),
    (128, dict(rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=10000.0))),
    (128, dict(rope_theta=500000.0, rope_scaling=LLAMA31, max_position_embeddings=131072)),
    (64, dict(rope_parameters=dict(LLAMA32, rope_theta=500000.0), max_position_embeddings=131072)),
    (16, dict(rope_theta=10000.0, rope_scaling=SMALL, max_position_embeddings=256)),
    (64, dict(rope_theta=500000.0, rope_scaling=LLAMA31, max_position_embeddings=131072, original_max_position_embeddings=4096)),
]


def main():
    cases = []
    for head_dim, fields in CASES:
        base = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=2 * head_dim, num_attention_heads=2)
        base.update(head_dim=head_dim, intermediate_size=32, num_hidden_layers=1, vocab_size=32)
        config = {**base, **fields}
        # The JSON text first: Transformers completes the dictionaries it is given in place.
        text = json.loads(json.dumps(config))
        frequencies = LlamaRotaryEmbedding(LlamaConfig(**config)).inv_freq
        assert frequencies.dtype == torch.float32
        cases.append(dict(config=text, inverse_frequencies=[float(f) for f in frequencies]))
    path = Path(__file__).parents[2] / "test" / "golden" / "rope.json"
    with path.open("w") as file:
        json.dump(dict(transformers=transformers.__version__, torch=torch.__version__, cases=cases), file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
