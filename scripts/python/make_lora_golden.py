"""Golden files of the adapter tests: 20 training steps of PEFT and PyTorch on a tiny Llama, per kind of adapter.

    python scripts/python/make_lora_golden.py            # writes test/golden/lora
    python scripts/python/make_lora_golden.py qlora ...  # these cases only, on the base that is there

Made with Python 3.11, torch 2.13.0, transformers 5.18.0, peft 0.21.0, safetensors 0.8.0; torch on one thread, float32,
eager attention. Run again only when a case is added: test/parity/lora.test.ts reads the files without Python.

test/golden/lora holds
    base                  a random checkpoint: grouped-query attention, biases everywhere, untied head
    batches.json          per step the conversations: token ids, and the loss weight of each token
    CASE                  what PEFT's save_pretrained wrote before the first step
    CASE/golden.safetensors
        loss [20] float64             sum(weight * nll) / sum(weight) of each step, before its update
        logits [S, V] float32         of the first conversation of the first step, before the first step
        last.NAME float32             adapter tensors after the last step, by PEFT's names
    pissa                 starts from the weights themselves, so nothing is saved before; instead of last.NAME
        delta.MODULE float32          what 20 steps added to the module's weight: s * (B A - B0 A0)

Every conversation goes through the model alone, as a batch of one without padding.
"""

import json
import pathlib
import shutil
import sys

import torch
from make_nf4_golden import dequantized
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "test" / "golden" / "lora"
STEPS = 20
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.1
VOCABULARY = 67

# What differs from LoraConfig's defaults; `ratio` is LoRA+'s. B starts from zero unless `noise` says otherwise.
CASES = {
    "lora": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": "all-linear", "noise": 0.05},
    "dora": {"r": 3, "lora_alpha": 5, "use_dora": True, "target_modules": "all-linear", "noise": 0.05},
    "loraplus": {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "ratio": 8.0},
    "pissa": {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": "all-linear", "init_lora_weights": "pissa"},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "k_proj", "o_proj", "up_proj", "layers.1.mlp.down_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, r".*\.0\..*k_proj": 6, "up_proj": 3},
        "alpha_pattern": {"k_proj": 3, "^model.layers.1.mlp.up_proj": 12},
        "noise": 0.05,
    },
    # QLoRA: float32 weights that NF4 with double quantisation leaves of the base (make_nf4_golden.py).
    "qlora": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "noise": 0.05, "quantize": True},
    "qdora": {"r": 3, "lora_alpha": 5, "use_dora": True, "target_modules": "all-linear", "noise": 0.05, "quantize": True},
}


def base_model() -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        if name.endswith("norm.weight"):
            parameter.data = 1 + 0.2 * noise
        elif name.endswith("bias"):
            parameter.data = 0.2 * noise
        else:
            parameter.data = noise / parameter.shape[-1] ** 0.5
    return model


def make_batches() -> list[list[dict]]:
    generator = torch.Generator().manual_seed(2)
    levels = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5])
    batches = []
    for _ in range(STEPS):
        batch = []
        for length in torch.randint(2, 24, (4,), generator=generator).tolist():
            ids = torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
            weights = levels[torch.randint(0, len(levels), (length,), generator=generator)]
            weights[-1] = 1
            batch.append({"ids": ids, "weights": weights.tolist()})
        batches.append(batch)
    return batches


def step_loss(model: torch.nn.Module, batch: list[dict]) -> torch.Tensor:
    """Weights are those of the tokens; nothing predicts the first."""
    total = sum(sum(conversation["weights"][1:]) for conversation in batch)
    loss = torch.zeros((), dtype=torch.float64)
    for conversation in batch:
        ids = torch.tensor(conversation["ids"])
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        nll = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
        loss = loss + (nll.double() * torch.tensor(conversation["weights"][1:])).sum() / total
    return loss


def optimizer_of(model: torch.nn.Module, ratio: float | None) -> torch.optim.Optimizer:
    """Magnitudes are vectors and do not decay here (nor does any bias or norm)."""
    if ratio is not None:
        return create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=LEARNING_RATE, loraplus_lr_ratio=ratio, loraplus_weight_decay=WEIGHT_DECAY
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
    )


def save_start(model: torch.nn.Module, folder: pathlib.Path) -> None:
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    # A path of this machine means nothing elsewhere; the test gives the base itself.
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "../base"
    config["target_modules"] = sorted(config["target_modules"])
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def updates(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """s * B A of every module, by its name in the base."""
    modules = {name: module for name, module in model.base_model.model.named_modules() if hasattr(module, "lora_A")}
    return {name: module.get_delta_weight("default").detach().clone() for name, module in modules.items()}


def run(name: str, case: dict, batches: list[list[dict]]) -> None:
    options = dict(case)
    noise, ratio, quantize = options.pop("noise", 0.0), options.pop("ratio", None), options.pop("quantize", False)
    model = LlamaForCausalLM.from_pretrained(GOLDEN / "base", dtype=torch.float32, attn_implementation="eager")
    if quantize:
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("_proj.weight"):
                parameter.data = torch.from_numpy(dequantized(parameter.detach().numpy()))
    torch.manual_seed(3)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for parameter_name, parameter in model.named_parameters():
        if ".lora_B." in parameter_name and noise:
            parameter.data = noise * torch.randn(parameter.shape)
        if ".lora_magnitude_vector." in parameter_name:
            parameter.data = parameter.data * (1 + 0.1 * torch.randn(parameter.shape))
    folder = GOLDEN / name
    pissa = options.get("init_lora_weights") == "pissa"
    before = updates(model) if pissa else {}
    if pissa:
        folder.mkdir(exist_ok=True)
    else:
        save_start(model, folder)

    with torch.no_grad():
        first = model(input_ids=torch.tensor(batches[0][0]["ids"])[None], use_cache=False).logits[0]
    optimizer = optimizer_of(model, ratio)
    losses = []
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = step_loss(model, batch)
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
    result = {"loss": torch.stack(losses), "logits": first.contiguous()}
    if pissa:
        result |= {f"delta.{key}": value - before[key] for key, value in updates(model).items()}
    else:
        result |= {f"last.{key}": value.contiguous() for key, value in get_peft_model_state_dict(model).items()}
    save_file(result, folder / "golden.safetensors")
    print(f"{name}: loss {losses[0].item():.6f} -> {losses[-1].item():.6f}")


def main() -> None:
    torch.set_num_threads(1)
    only = sys.argv[1:]
    if only:
        batches = json.loads((GOLDEN / "batches.json").read_text())
        for name in only:
            run(name, CASES[name], batches)
        return
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir(parents=True)
    base_model().save_pretrained(GOLDEN / "base")
    (GOLDEN / "base" / "generation_config.json").unlink(missing_ok=True)
    batches = make_batches()
    (GOLDEN / "batches.json").write_text(json.dumps(batches) + "\n")
    for name, case in CASES.items():
        run(name, case, batches)


if __name__ == "__main__":
    main()
