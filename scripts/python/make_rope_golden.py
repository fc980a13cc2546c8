"""Writes test/golden/rope.json: rotary tables as Transformers computes them, for every rope type we support.

Made with torch 2.13.0 and transformers 5.18.0. Run in the development environment:
python scripts/python/make_rope_golden.py

A case is a config and, for each kind of layer in the order of our tables, the inverse frequencies and the factor of cos
and sin that the family's own rotary module holds; for longrope those of short conversations, then of long ones.
"""

import importlib
import json
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

LLAMA31 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
LLAMA32 = dict(LLAMA31, factor=32.0)
SMALL = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=2.0, original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768)


def long(dim, **fields):
    short = [1 + 0.01 * i for i in range(dim // 2)]
    return dict(rope_type="longrope", short_factor=short, long_factor=[1.5 + 0.37 * i * i for i in range(dim // 2)], **fields)


# (model type, head_dim, fields of config.json): old and new spelling, with theta inside and outside
CASES = [
    ("llama", 8, dict(rope_theta=10000.0)),
    ("llama", 64, dict()),
    ("llama", 64, dict(rope_theta=100000)),
    ("llama", 128, dict(rope_parameters=dict(rope_type="default", rope_theta=500000.0))),
    ("llama", 256, dict(rope_theta=1e6)),
    ("llama", 64, dict(rope_theta=10000.0, rope_scaling=dict(type="linear", factor=2.0))),
    ("llama", 128, dict(rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=10000.0))),
    ("llama", 128, dict(rope_theta=500000.0, rope_scaling=LLAMA31, max_position_embeddings=131072)),
    ("llama", 64, dict(rope_parameters=dict(LLAMA32, rope_theta=500000.0), max_position_embeddings=131072)),
    ("llama", 16, dict(rope_theta=10000.0, rope_scaling=SMALL, max_position_embeddings=256)),
    ("llama", 64, dict(rope_theta=500000.0, rope_scaling=LLAMA31, max_position_embeddings=131072, original_max_position_embeddings=4096)),
    ("llama", 64, dict(rope_theta=10000.0, rope_scaling=dict(type="dynamic", factor=2.0))),
    ("llama", 128, dict(rope_parameters=dict(rope_type="dynamic", factor=3.3, rope_theta=5e5), max_position_embeddings=3000)),
    ("qwen2", 128, dict(rope_theta=1e6, rope_scaling=dict(YARN, type="yarn"), max_position_embeddings=131072)),
    ("qwen3", 128, dict(rope_parameters=dict(YARN, rope_theta=1e6, attention_factor=1.25), max_position_embeddings=40960)),
    ("llama", 64, dict(rope_scaling=dict(rope_type="yarn", factor=16.0), max_position_embeddings=4096)),
    ("llama", 64, dict(rope_scaling=dict(YARN, beta_fast=16, beta_slow=2.0, truncate=False, mscale=0.7, mscale_all_dim=1.2))),
    ("llama", 8, dict(rope_scaling=dict(rope_type="yarn", factor=2.5, original_max_position_embeddings=16, mscale=2.0), max_position_embeddings=40)),
    # The ramp has no width: both ends round to one dimension.
    ("llama", 16, dict(rope_theta=1e8, rope_scaling=dict(rope_type="yarn", factor=2.0, beta_fast=1.0, beta_slow=1.0, truncate=False, original_max_position_embeddings=2048))),
    ("phi3", 96, dict(rope_scaling=long(96, original_max_position_embeddings=4096), max_position_embeddings=131072, original_max_position_embeddings=4096)),
    ("phi3", 64, dict(rope_scaling=dict(long(48), type="longrope"), partial_rotary_factor=0.75, max_position_embeddings=131072)),
    ("phi3", 32, dict(rope_parameters=long(32, attention_factor=1.3, factor=4.0, rope_theta=5000.0), max_position_embeddings=8192)),
    ("phi3", 32, dict(rope_theta=20000.0)),
    ("llama", 32, dict(rope_parameters=long(32, original_max_position_embeddings=512), max_position_embeddings=2048)),
    ("gpt_neox", 64, dict(rotary_pct=0.25, rotary_emb_base=20000)),
    ("gpt_neox", 64, dict()),
    ("gpt_neox", 32, dict(rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=1e4, partial_rotary_factor=0.5))),
    ("stablelm", 64, dict(rope_theta=10000)),
    ("stablelm", 80, dict(rope_theta=10000, partial_rotary_factor=0.5)),
    ("smollm3", 128, dict()),
    ("smollm3", 128, dict(rope_theta=5e6)),
    ("gemma2", 256, dict()),
    ("gemma3_text", 256, dict()),
    ("gemma3_text", 128, dict(rope_theta=2e6, rope_local_base_freq=5000.0, rope_scaling=dict(rope_type="linear", factor=8.0))),
    ("gemma3_text", 128, dict(rope_parameters=dict(full_attention=dict(rope_type="linear", factor=4.0, rope_theta=1e6), sliding_attention=dict(rope_type="default", rope_theta=1e4)))),
]


def rotary_of(model_type, config):
    module = importlib.import_module(f"transformers.models.{model_type.removesuffix('_text')}.modeling_{model_type.removesuffix('_text')}")
    (name,) = [n for n in vars(module) if n.endswith("RotaryEmbedding")]
    return getattr(module, name)(config)


def table(frequencies, scale):
    assert frequencies.dtype == torch.float32
    return dict(inverse_frequencies=[float(f) for f in frequencies], scale=float(scale))


def tables_of(model_type, config):
    rotary = rotary_of(model_type, config)
    if model_type == "gemma3_text":
        kinds = ["sliding_attention", "full_attention"]
        return [table(getattr(rotary, f"{kind}_inv_freq"), getattr(rotary, f"{kind}_attention_scaling")) for kind in kinds]
    tables = [table(rotary.inv_freq, rotary.attention_scaling)]
    if rotary.rope_type == "dynamic":
        # The longest conversation of the trained context changes nothing.
        rotary(torch.zeros(1), torch.tensor([[config.max_position_embeddings - 1]]))
        assert tables == [table(rotary.inv_freq, rotary.attention_scaling)]
    if rotary.rope_type == "longrope":
        context = config.rope_parameters["original_max_position_embeddings"]
        rotary(torch.zeros(1), torch.tensor([[context - 1]]))
        assert tables == [table(rotary.inv_freq, rotary.attention_scaling)]
        rotary(torch.zeros(1), torch.tensor([[context]]))
        tables.append(table(rotary.inv_freq, rotary.attention_scaling))
        frequencies, _ = ROPE_INIT_FUNCTIONS["longrope"](config, None, seq_len=context + 1)
        assert torch.equal(frequencies, rotary.inv_freq)
    return tables


def main():
    cases = []
    for model_type, head_dim, fields in CASES:
        base = dict(model_type=model_type, hidden_size=2 * head_dim, num_attention_heads=2)
        base.update(intermediate_size=32, num_hidden_layers=2, vocab_size=32, num_key_value_heads=2, pad_token_id=None)
        if model_type in ("llama", "qwen3", "gemma2", "gemma3_text"):
            base.update(head_dim=head_dim)
        if model_type == "gpt_neox":
            del base["num_key_value_heads"]
        if model_type == "gemma3_text":
            base.update(layer_types=["sliding_attention", "full_attention"])
        config = {**base, **fields}
        # The JSON text first: Transformers completes the dictionaries it is given in place.
        text = json.loads(json.dumps(config))
        made = AutoConfig.for_model(**config)
        tables = tables_of(model_type, made)
        threshold = made.rope_parameters["original_max_position_embeddings"] if len(tables) == 2 and model_type != "gemma3_text" else 0
        cases.append(dict(config=text, tables=tables, long_rope_threshold=threshold))
    path = Path(__file__).parents[2] / "test" / "golden" / "rope.json"
    with path.open("w") as file:
        json.dump(dict(transformers=transformers.__version__, torch=torch.__version__, cases=cases), file)
        file.write("\n")


if __name__ == "__main__":
    main()
