"""Golden files of the family tests: what Transformers says about a tiny random model of every family and variant.

    python scripts/python/make_family_golden.py [CASE ...]      # writes test/golden/families/*.safetensors

Made with Python 3.11, torch 2.13.0, transformers 5.18.0, safetensors 0.8.0; torch on one thread, eager attention,
float32. Run again only when a case is added or changed: test/parity/families.test.ts reads the files without Python.

Weights are no file: element i of the tensor with index s in the sorted names of the checkpoint is
offset + scale * uniform(1 + s, i), the hash of test/parity/hashed.ts; offset and scale stand in the file's metadata, with
the SHA-256 of the bytes that Transformers wrote for the tensor. The conversations of the micro-batch go through the model
one by one, as in make_golden.py, whose layout of the arrays this is. What a case is about must matter: each names changes
of its config under which the logits must come out clearly different.

NAME.safetensors holds
    tokens, positions, targets [T] int32, weights [T] float32, cu_seqlens [B + 1] int32   the micro-batch
    logits [T, V] float32, loss [1] float64
    grad.NAME float32                     d loss / d NAME, under the names of the checkpoint; none for what sees images
    losses [10] float64                   before each of ten AdamW steps on the same micro-batch (see adamw below)
    metadata, in one JSON text: config (text, as a user's folder has it), saved_config (as Transformers writes it), tensors
"""

import hashlib
import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import torch
import transformers
from make_golden import pack, random_conversations
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "test" / "golden" / "families"
LENGTHS = [17, 1, 24, 9, 2]
VOCABULARY = 40
# Names that Transformers' checkpoints have for parameters that its modules call otherwise.
RENAMED = {
    "gpt_neox": {"lm_head.": "embed_out."},
    "gemma3": {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.", "model.": ""},
}

BASE = dict(
    vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None,
)
FULL, SLIDING = "full_attention", "sliding_attention"
LONG = dict(type="longrope", short_factor=[1.0, 1.1, 1.3, 1.6], long_factor=[1.2, 2.0, 3.5, 7.0])


def case(model_type, without, **fields):
    """`without`: changes of the config, each of which must show in the logits."""
    return dict(config={**BASE, "model_type": model_type, **fields}, without=without)


def gpt2(without, **fields):
    sizes = dict(vocab_size=VOCABULARY, n_embd=16, n_head=2, n_layer=2, n_positions=64, bos_token_id=1, eos_token_id=2)
    return dict(config={**sizes, "model_type": "gpt2", **fields}, without=without)


def neox(without, **fields):
    made = case("gpt_neox", without, **fields)
    del made["config"]["num_key_value_heads"]
    return made


def images(without, **fields):
    text = {**BASE, "vocab_size": VOCABULARY, "model_type": "gemma3_text", **fields}
    vision = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=28, patch_size=14)
    tokens = dict(image_token_index=VOCABULARY - 1, boi_token_index=VOCABULARY - 2, eoi_token_index=VOCABULARY - 3)
    config = dict(model_type="gemma3", text_config=text, vision_config={**vision, "model_type": "siglip_vision_model"})
    return dict(config={**config, **tokens, "mm_tokens_per_image": 4, "eos_token_id": [2, 3]}, without=without)


YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
CASES = {
    "llama-yarn": case("llama", [dict(rope_scaling=None)], head_dim=8, rope_theta=10000.0, rope_scaling=YARN),
    "llama-dynamic": case("llama", [], rope_scaling=dict(type="dynamic", factor=2.0), mlp_bias=True, tie_word_embeddings=True),
    "llama-longrope": case(
        "llama", [dict(rope_parameters=None)], head_dim=8, max_position_embeddings=64,
        rope_parameters={**LONG, "rope_theta": 5000.0, "original_max_position_embeddings": 16},
    ),
    "mistral": case("mistral", [dict(sliding_window=None), dict(sliding_window=6)], head_dim=8, sliding_window=5, rope_theta=1e4),
    "qwen2": case("qwen2", [dict(use_sliding_window=False)], use_sliding_window=True, sliding_window=4, max_window_layers=1, rope_theta=1e6, tie_word_embeddings=True),
    "qwen2-full": case("qwen2", [], use_sliding_window=False, sliding_window=4, rope_theta=1e6),
    "qwen3": case("qwen3", [dict(layer_types=[FULL, FULL])], head_dim=6, sliding_window=3, use_sliding_window=True, layer_types=[SLIDING, FULL]),
    "qwen3-yarn": case("qwen3", [dict(rope_scaling=None)], head_dim=8, attention_bias=True, rope_scaling=dict(YARN, beta_fast=4.0, beta_slow=1.0), tie_word_embeddings=True),
    "gemma2": case(
        "gemma2", [dict(attn_logit_softcapping=None), dict(final_logit_softcapping=None), dict(sliding_window=64), dict(query_pre_attn_scalar=8)],
        head_dim=8, sliding_window=4, query_pre_attn_scalar=5, attn_logit_softcapping=1.5, final_logit_softcapping=4.0, num_hidden_layers=3,
    ),
    "gemma2-plain": case(
        "gemma2", [dict(attention_bias=False)], head_dim=6, attn_logit_softcapping=None, final_logit_softcapping=None,
        attention_bias=True, tie_word_embeddings=False, layer_types=[FULL, SLIDING], sliding_window=3,
    ),
    "gemma3": case(
        "gemma3_text", [dict(rope_local_base_freq=10000.0), dict(rope_scaling=None), dict(sliding_window=64)], head_dim=8,
        sliding_window=4, sliding_window_pattern=3, num_hidden_layers=4, query_pre_attn_scalar=9, rope_theta=1e6,
        rope_local_base_freq=100.0, rope_scaling=dict(rope_type="linear", factor=4.0),
    ),
    "gemma3-softcap": case(
        "gemma3_text", [dict(final_logit_softcapping=None)], head_dim=8, sliding_window=5, layer_types=[FULL, SLIDING],
        final_logit_softcapping=3.0, tie_word_embeddings=False,
        rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=5e5), sliding_attention=dict(rope_type="default", rope_theta=1e3)),
    ),
    "gemma3-images": images([], head_dim=8, sliding_window=5, sliding_window_pattern=2, rope_local_base_freq=500.0),
    "phi3": case("phi3", [dict(sliding_window=None)], hidden_size=32, sliding_window=5, rope_theta=1e4),
    "phi3-longrope": case(
        "phi3", [dict(rope_scaling=None), dict(original_max_position_embeddings=64)], hidden_size=48, num_attention_heads=4,
        partial_rotary_factor=0.67, rope_scaling=LONG, original_max_position_embeddings=16, tie_word_embeddings=True, num_hidden_layers=1,
    ),
    "olmo2": case("olmo2", [], rms_norm_eps=1e-5, rope_theta=5e5),
    "olmo2-bias": case("olmo2", [dict(attention_bias=False)], attention_bias=True, tie_word_embeddings=True, num_key_value_heads=4, hidden_size=24),
    "smollm3": case("smollm3", [dict(no_rope_layers=[1, 1, 1, 1])], num_hidden_layers=4, no_rope_layer_interval=2, rope_theta=5e6, pretraining_tp=2),
    "smollm3-window": case("smollm3", [dict(use_sliding_window=False), dict(no_rope_layers=[1, 1])], no_rope_layers=[0, 1], use_sliding_window=True, sliding_window=4, tie_word_embeddings=False, mlp_bias=True),
    "gpt2": gpt2([dict(activation_function="gelu")], resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, activation_function="gelu_new"),
    "gpt2-untied": gpt2([dict(scale_attn_weights=True)], n_inner=20, n_head=4, activation_function="relu", tie_word_embeddings=False, scale_attn_weights=False),
    "gpt-neox": neox([dict(use_parallel_residual=False), dict(rotary_pct=1.0)], hidden_size=32, num_attention_heads=2, rotary_pct=0.25, rotary_emb_base=1000),
    "gpt-neox-sequential": neox(
        [dict(use_parallel_residual=True), dict(hidden_act="gelu")], use_parallel_residual=False, attention_bias=False, hidden_act="gelu_fast",
        tie_word_embeddings=True, num_attention_heads=2, rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=1e4, partial_rotary_factor=0.5),
    ),
    "stablelm": case("stablelm", [dict(partial_rotary_factor=1.0)], use_qkv_bias=True, hidden_size=32, num_attention_heads=4, partial_rotary_factor=0.25),
    "stablelm-plain": case("stablelm", [dict(partial_rotary_factor=0.5)], partial_rotary_factor=1.0, tie_word_embeddings=True),
    "granite": case(
        "granite", [dict(embedding_multiplier=1.0), dict(attention_multiplier=0.5), dict(residual_multiplier=1.0), dict(logits_scaling=1.0)],
        embedding_multiplier=3.0, attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=2.5, attention_dropout=0.1, tie_word_embeddings=True,
    ),
}


def uniform(stream: int, count: int) -> np.ndarray:
    """The hash of test/parity/hashed.ts: [count] numbers in [-1, 1)."""
    index = np.arange(count, dtype=np.uint32)
    with np.errstate(over="ignore"):
        x = index * np.uint32(0x9E3779B1) + np.uint32((stream * 0x85EBCA77) & 0xFFFFFFFF)
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        x = (x ^ (x >> np.uint32(16))) >> np.uint32(8)
    return x.astype(np.float64) * 2.0**-23 - 1


def offset_and_scale(model_type: str, name: str, shape: list[int]) -> tuple[float, float]:
    """Deviation 1/√inputs for matrices; norms around what makes them 1; biases clearly off 0."""
    if len(shape) > 1:
        inputs = shape[0] if model_type == "gpt2" and ".h." in name else int(np.prod(shape[1:]))
        return 0.0, (3 / inputs) ** 0.5
    gemma = model_type.startswith("gemma")
    return (0.0 if name.endswith("bias") or gemma else 1.0), 0.3


def make(config: dict, folder: pathlib.Path):
    """The model, and its parameters by the names of its checkpoint, filled from the hash."""
    made = AutoConfig.for_model(**json.loads(json.dumps(config)))
    model = AutoModelForCausalLM.from_config(made, attn_implementation="eager", dtype=torch.float32).eval()
    renamed = RENAMED.get(config["model_type"], {})
    parameters = {}
    for name, parameter in model.named_parameters():
        old = next((prefix for prefix in renamed if name.startswith(prefix)), "")
        parameters[renamed.get(old, "") + name[len(old) :]] = parameter
    for index, name in enumerate(sorted(parameters)):
        shape = list(parameters[name].shape)
        offset, scale = offset_and_scale(config["model_type"], name, shape)
        values = offset + scale * uniform(1 + index, int(np.prod(shape)))
        parameters[name].data = torch.from_numpy(values.astype(np.float32)).reshape(shape)
    model.tie_weights()
    model.save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}
    assert stored.keys() == parameters.keys(), stored.keys() ^ parameters.keys()
    for name, tensor in stored.items():
        assert torch.equal(tensor, parameters[name].data), name
    return model, parameters


def forward(model, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """[T, V] logits, and sum(weight * nll) / sum(weight) in float64 with its graph."""
    bounds = batch["cu_seqlens"].tolist()
    total = batch["weights"].double().sum()
    logits, loss = [], torch.zeros((), dtype=torch.float64)
    for begin, end in zip(bounds, bounds[1:]):
        ids = batch["tokens"][begin:end].long()
        out = model(input_ids=ids[None], use_cache=False).logits[0]
        nll = torch.nn.functional.cross_entropy(out, batch["targets"][begin:end].long(), reduction="none")
        loss = loss + (batch["weights"][begin:end] * nll).double().sum() / total
        logits.append(out.detach())
    return torch.cat(logits).contiguous(), loss


def adamw(model, batch) -> torch.Tensor:
    """Losses before each of ten steps: rate 1e-3, decay 0.1 of matrices and embeddings, norm clipped to 1."""
    trained = [p for p in model.parameters() if p.grad is not None]
    decayed = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim == 1]
    groups = [dict(params=decayed, weight_decay=0.1), dict(params=others, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, foreach=False)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        _, loss = forward(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


def check_that_it_matters(name: str, config: dict, changes: list[dict], logits, batch, folder: pathlib.Path) -> None:
    for change in changes:
        with torch.no_grad():
            other, _ = forward(make({**config, **change}, folder)[0], batch)
        difference = ((other - logits).norm() / logits.norm()).item()
        # Two kinds of GELU are that close.
        assert difference > (1e-4 if set(change) <= {"hidden_act", "activation_function"} else 1e-2), (name, change, difference)


def write(name: str, config: dict, without: list[dict], batch) -> None:
    folder = pathlib.Path(tempfile.mkdtemp())
    model, parameters = make(config, folder)
    saved = json.loads((folder / "config.json").read_text())
    logits, loss = forward(model, batch)
    loss.backward()
    result = dict(batch) | {"logits": logits, "loss": loss.detach().reshape(1)}
    tensors = {}
    for key in sorted(parameters):
        parameter = parameters[key]
        if key.startswith(("vision_tower.", "multi_modal_projector.")):
            assert parameter.grad is None, key
        else:
            assert parameter.grad.norm() > 1e-5, f"{name}, {key}: the gradient says nothing"
            result[f"grad.{key}"] = parameter.grad.contiguous()
        shape = list(parameter.shape)
        offset, scale = offset_and_scale(config["model_type"], key, shape)
        digest = hashlib.sha256(parameter.data.numpy().tobytes()).hexdigest()
        tensors[key] = dict(shape=shape, offset=offset, scale=scale, sha256=digest)
    check_that_it_matters(name, config, without, logits, batch, folder)
    result["losses"] = adamw(model, batch)
    assert abs(result["losses"][0] / loss - 1) < 1e-9 and result["losses"][9] < loss
    # As text: Transformers insists on 4.0 where a number may have a fraction, and JSON.parse makes it 4.
    text = json.dumps({"architectures": saved["architectures"], **config}, indent=2)
    metadata = dict(config=text, saved_config=saved, tensors=tensors)
    versions = dict(transformers=transformers.__version__, torch=torch.__version__)
    path = GOLDEN / f"{name}.safetensors"
    # One entry: of several, the order in the file is another every time.
    save_file(result, path, metadata={"case": json.dumps({**metadata, **versions})})
    shutil.rmtree(folder)
    count = sum(p.numel() for p in parameters.values())
    print(f"{name}: {count} parameters, loss {loss.item():.9f} -> {result['losses'][9]:.9f}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    GOLDEN.mkdir(parents=True, exist_ok=True)
    micro_batch = pack(random_conversations(11, VOCABULARY, LENGTHS), seed=12)
    for name in sys.argv[1:] or CASES:
        write(name, **CASES[name], batch=micro_batch)
