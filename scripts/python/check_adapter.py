"""Adapters of every model of test/golden/families, both ways between Tunesmith and PEFT.

    python scripts/python/check_adapter.py

Written for torch 2.13.0, transformers 5.18.0 and peft 0.21.0; run from the repository. scripts/parity/adapters.ts trains an
adapter of all projections of each model for three steps (LoRA, every other one DoRA) and saves it with the logits that it
computes then: PEFT loads the folder unchanged, and its logits must agree within 1e-5. The other way PEFT makes an adapter
with random B, and magnitudes that are not the norms, and saves it: here it is loaded, and the logits must agree too.
Nothing is left behind. Exits with 1 where something differs.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, logging

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "test" / "golden" / "families"


def base_model(folder: pathlib.Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def logits_of(model: torch.nn.Module, name: str) -> torch.Tensor:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tokens, bounds = file.get_tensor("tokens").long(), file.get_tensor("cu_seqlens").tolist()
    parts = [model(input_ids=tokens[None, begin:end], use_cache=False).logits[0] for begin, end in zip(bounds, bounds[1:])]
    return torch.cat(parts)


def saved_logits(folder: pathlib.Path, like: torch.Tensor) -> torch.Tensor:
    return torch.frombuffer(bytearray((folder / "logits.f32").read_bytes()), dtype=torch.float32).reshape(like.shape)


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def make_theirs(name: str, out: pathlib.Path) -> torch.Tensor:
    """An adapter of the same modules, with another rank."""
    config = json.loads((out / "ours" / name / "adapter_config.json").read_text())
    options = {"target_modules": config["target_modules"], "use_dora": config["use_dora"], "use_rslora": True}
    torch.manual_seed(1)
    model = get_peft_model(base_model(out / "bases" / name), LoraConfig(task_type="CAUSAL_LM", r=5, lora_alpha=4, **options))
    for parameter_name, parameter in model.named_parameters():
        if ".lora_B." in parameter_name:
            parameter.data = 0.1 * torch.randn(parameter.shape)
        if ".lora_magnitude_vector." in parameter_name:
            parameter.data = parameter.data * (1 + 0.1 * torch.randn(parameter.shape))
    model.eval()
    model.save_pretrained(out / "theirs" / name)
    return logits_of(model, name)


def check(name: str, out: pathlib.Path, theirs: torch.Tensor) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns of adapter keys that are missing or unexpected
        model = PeftModel.from_pretrained(base_model(out / "bases" / name), out / "ours" / name).eval()
    loaded = logits_of(model, name)
    with model.disable_adapter():
        moved = distance(loaded, logits_of(model, name))
    out_error = distance(saved_logits(out / "ours" / name, loaded), loaded)
    in_error = distance(saved_logits(out / "theirs" / name, theirs), theirs)
    good = out_error < 1e-5 and in_error < 1e-5 and moved > 1e-2
    kind = "DoRA" if model.peft_config["default"].use_dora else "LoRA"
    print(
        f"{name:22} {kind}  ours in PEFT {out_error:.1e}, PEFT's here {in_error:.1e}, "
        f"moved by training {moved:.2f} {'' if good else 'WRONG'}"
    )
    return good


def main() -> int:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as parent:
        out = pathlib.Path(parent)
        command = ["npx", "tsx", "scripts/parity/adapters.ts", parent]
        subprocess.run(command, cwd=ROOT, check=True)
        names = sorted(path.name for path in (out / "ours").iterdir())
        theirs = {name: make_theirs(name, out) for name in names}
        subprocess.run([*command, "read"], cwd=ROOT, check=True)
        results = [check(name, out, theirs[name]) for name in names]
    print(f"{sum(results)} of {len(results)} agree both ways")
    return 0 if all(results) else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
