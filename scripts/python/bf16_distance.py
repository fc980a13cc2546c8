"""How far bfloat16 takes PyTorch's gradients from float32: the yardstick of test/parity/bf16.test.ts.

    python scripts/python/bf16_distance.py          # writes test/golden/bf16-distance.json

Made with Python 3.11, torch 2.13.0, transformers 5.18.0, numpy. For each model and each parameter tensor, the root mean
square over several micro-batches of |g_bf16 - g_f32| / |g_f32|, where g_bf16 comes from autocast over float32
parameters, with both attention paths of Transformers ("sdpa" and "eager").

Two models: stories260K of ../shared, and `midsize`, whose weights and tokens are a hash of their index (below and in
test/parity/hashed.ts), so that they need no file.
"""

import json
import pathlib

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
STORIES = ROOT.parent / "shared" / "models" / "stories260K"
MIDSIZE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 2048,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
STORY_TEXTS = [
    "Once upon a time, there was a big bear who lived in a forest. The bear liked to eat honey all day long.",
    "Lily and Ben went to the beach with their mom. They made a castle out of sand and put a shell on top.",
    'One day, Tim found a red ball under his bed. "Look, mom!" he said. His mom smiled and gave him a hug.',
    "The little fish wanted to see the world. She swam and swam until she met a kind old turtle.",
    "There was a boy who did not like the rain. He sat by the window and waited for the sun to come out.",
    "A cat and a dog were friends. They played in the garden every day and slept under the same tree.",
    "Mia had a doll with a blue dress. One morning, the doll was gone. Mia looked in every room of the house.",
    "The king had a gold crown. A bird took it and flew away to the top of the mountain.",
]


def hashed(stream: int, count: int) -> np.ndarray:
    """[count] uint32: the finaliser of MurmurHash3 over index and stream."""
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(stream) * np.uint32(0x85EBCA77)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x85EBCA6B)
        x ^= x >> np.uint32(13)
        x *= np.uint32(0xC2B2AE35)
        return x ^ (x >> np.uint32(16))


def uniform(stream: int, count: int) -> np.ndarray:
    """[count] float64 in [-1, 1)."""
    return (hashed(stream, count) >> np.uint32(8)).astype(np.float64) * 2.0**-23 - 1


def midsize() -> LlamaForCausalLM:
    """Stream 1 + i for the i-th tensor in the order of its Transformers names; deviation 1/sqrt(columns)."""
    model = LlamaForCausalLM(LlamaConfig(**MIDSIZE))
    for index, (_, parameter) in enumerate(sorted(model.named_parameters())):
        values = uniform(1 + index, parameter.numel())
        values = 1 + 0.2 * values if parameter.ndim == 1 else values * np.sqrt(3 / parameter.shape[-1])
        parameter.data = torch.from_numpy(values.astype(np.float32)).reshape(parameter.shape)
    return model


def midsize_batches() -> list[list[list[int]]]:
    batches = []
    for number in range(4):
        ids = (hashed(1000 + number, 192) % np.uint32(MIDSIZE["vocab_size"])).tolist()
        batches.append([ids[:120], ids[120:]])
    return batches


def gradients(model: LlamaForCausalLM, batch: list[list[int]], bf16: bool) -> dict[str, torch.Tensor]:
    """Mean loss over every target of the batch; conversations one by one, without padding."""
    model.zero_grad(set_to_none=True)
    targets = sum(len(ids) - 1 for ids in batch)
    for ids in batch:
        tokens = torch.tensor([ids])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
        (torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum") / targets).backward()
    return {name: parameter.grad.double().clone() for name, parameter in model.named_parameters()}


def distances(model: LlamaForCausalLM, batches: list[list[list[int]]]) -> dict[str, dict[str, float]]:
    result = {}
    for attention in ["sdpa", "eager"]:
        model.set_attn_implementation(attention)
        squares = {name: 0.0 for name, _ in model.named_parameters()}
        for batch in batches:
            exact = gradients(model, batch, bf16=False)
            for name, rounded in gradients(model, batch, bf16=True).items():
                squares[name] += ((rounded - exact[name]).norm() / exact[name].norm()).item() ** 2
        result[attention] = {name: float(f"{(s / len(batches)) ** 0.5:.6g}") for name, s in squares.items()}
        print(attention, {name: f"{value:.4f}" for name, value in result[attention].items()})
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    stories = LlamaForCausalLM.from_pretrained(STORIES, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    ids = [tokenizer(text)["input_ids"] for text in STORY_TEXTS]
    story_batches = [ids[i : i + 2] for i in range(0, len(ids), 2)]
    golden = {
        "stories260K": {"batches": story_batches, "distance": distances(stories, story_batches)},
        "midsize": {
            "config": MIDSIZE,
            "batches": midsize_batches(),
            "distance": distances(midsize(), midsize_batches()),
        },
    }
    path = ROOT / "test" / "golden" / "bf16-distance.json"
    path.write_text(json.dumps(golden) + "\n")
    print(f"{path.stat().st_size / 1e3:.0f} kB")
