"""Golden files of the float32 parity tests: what Transformers says about three small Llama models.

    python scripts/python/make_golden.py            # writes test/golden/{stories260K,llama3-rope,linear-rope}

Made with Python 3.11, torch 2.13.0, transformers 5.18.0, safetensors 0.8.0; torch on one thread, eager attention,
float32. Run again only when a case is added: test/parity/golden.test.ts reads the files without Python.

Each case is one packed micro-batch of several conversations. Here every conversation goes through the model alone,
as a batch of one without padding, so that nothing of the packing is taken over from the side that is being checked.
The loss is sum(weight * nll) / sum(weight) over all of them, with weights other than 0 and 1.

golden.safetensors of a case holds
    tokens, positions, targets [T] int32, weights [T] float32, cu_seqlens [B + 1] int32   the micro-batch
    logit_rows [S] int32, logits [S, V] float32                                           chosen rows
    loss [1] float64, nll [T] float32                                                     before weighting
    grad.NAME float32                                             d loss / d NAME, Transformers' parameter names
"""

import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "test" / "golden"
STORIES = ROOT.parent / "shared" / "models" / "stories260K"

TEXTS = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    "The dog",
    'Tom said, "I want to go to the big lake." His mom smiled and said, "We can go after lunch, Tom."',
    "One day, a bird saw a shiny stone near the old tree. The bird was very happy and sang a song.",
]


def random_case(seed: int, config: LlamaConfig) -> LlamaForCausalLM:
    """Weights large enough that every gradient is far from rounding noise; norms and biases away from 1 and 0."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        if name.endswith("norm.weight"):
            parameter.data = 1 + 0.2 * noise
        elif name.endswith("bias"):
            parameter.data = 0.2 * noise
        else:
            parameter.data = noise / parameter.shape[-1] ** 0.5
    model.tie_weights()
    return model


def random_conversations(seed: int, vocab: int, lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, vocab, (length,), generator=generator).tolist() for length in lengths]


def pack(conversations: list[list[int]], seed: int) -> dict[str, torch.Tensor]:
    """Weights belong to the target: the last token of a conversation has none. Half is context, the rest is uneven."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 0.25, 2.0])
    tokens, positions, targets, weights, bounds = [], [], [], [], [0]
    for ids in conversations:
        drawn = levels[torch.randint(0, len(levels), (len(ids),), generator=generator)]
        drawn[-1] = 0
        tokens += ids
        positions += range(len(ids))
        targets += ids[1:] + [0]
        weights += drawn.tolist()
        bounds.append(len(tokens))
    as_int = {"tokens": tokens, "positions": positions, "targets": targets, "cu_seqlens": bounds}
    batch = {name: torch.tensor(values, dtype=torch.int32) for name, values in as_int.items()}
    return batch | {"weights": torch.tensor(weights, dtype=torch.float32)}


def golden(model: LlamaForCausalLM, batch: dict[str, torch.Tensor], rows: list[int]) -> dict[str, torch.Tensor]:
    model.eval()
    model.zero_grad(set_to_none=True)
    bounds = batch["cu_seqlens"].tolist()
    total = batch["weights"].double().sum()
    logits, nlls, loss = [], [], torch.zeros((), dtype=torch.float64)
    for begin, end in zip(bounds, bounds[1:]):
        ids = batch["tokens"][begin:end].long()
        out = model(input_ids=ids[None], use_cache=False).logits[0]
        nll = torch.nn.functional.cross_entropy(out, batch["targets"][begin:end].long(), reduction="none")
        part = (batch["weights"][begin:end] * nll).double().sum() / total
        part.backward()
        loss += part.detach()
        logits.append(out.detach())
        nlls.append(nll.detach())
    chosen = torch.tensor(rows, dtype=torch.int32)
    result = dict(batch)
    result |= {"logit_rows": chosen, "logits": torch.cat(logits)[chosen.long()].contiguous()}
    result |= {"loss": loss.reshape(1), "nll": torch.cat(nlls)}
    for name, parameter in model.named_parameters():
        assert parameter.grad.norm() > 1e-5, f"{name}: the gradient says nothing"
        result[f"grad.{name}"] = parameter.grad.contiguous()
    return result


def write(name: str, model: LlamaForCausalLM, batch: dict[str, torch.Tensor], rows: list[int]) -> None:
    result = golden(model, batch, rows)
    folder = GOLDEN / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(result, folder / "golden.safetensors")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: {len(batch['tokens'])} tokens, loss {result['loss'].item():.9f}, {size / 1e6:.2f} MB")


def fresh(name: str) -> pathlib.Path:
    folder = GOLDEN / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def stories() -> None:
    model = LlamaForCausalLM.from_pretrained(STORIES, dtype=torch.float32, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    batch = pack([tokenizer(text)["input_ids"] for text in TEXTS], seed=1)
    fresh("stories260K")
    write("stories260K", model, batch, rows=list(range(0, len(batch["tokens"]), 8)))


def llama3_rope() -> None:
    """Grouped-query attention, untied head, explicit head_dim, every bias, llama3 scaling with all three bands."""
    folder = fresh("llama3-rope")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 48,
        "intermediate_size": 72,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 211,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "attention_bias": True,
        "mlp_bias": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    # Written by hand in the layout of Transformers 4 (rope_theta and rope_scaling at the top), and read back from it.
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = random_case(2, LlamaConfig.from_pretrained(folder, attn_implementation="eager"))
    assert model.model.rotary_emb.rope_type == "llama3"
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    batch = pack(random_conversations(3, 211, [17, 1, 40, 9, 2]), seed=4)
    write("llama3-rope", model, batch, rows=list(range(len(batch["tokens"]))))


def linear_rope() -> None:
    """Multi-query attention, tied head, head_dim left out, linear scaling, bfloat16 weights in several shards."""
    folder = fresh("linear-rope")
    config = LlamaConfig(
        hidden_size=40,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=5,
        num_key_value_heads=1,
        vocab_size=97,
        max_position_embeddings=128,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 5000.0},
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    model = random_case(5, config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="40KB")
    saved = json.loads((folder / "config.json").read_text())
    assert saved["rope_parameters"]["rope_type"] == "linear" and saved["dtype"] == "bfloat16"
    del saved["head_dim"]
    (folder / "config.json").write_text(json.dumps(saved, indent=2) + "\n")
    (folder / "generation_config.json").unlink()
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    batch = pack(random_conversations(6, 97, [30, 3, 64, 11]), seed=7)
    write("linear-rope", model, batch, rows=list(range(len(batch["tokens"]))))


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    stories()
    llama3_rope()
    linear_rope()
