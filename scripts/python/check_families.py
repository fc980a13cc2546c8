"""Loads what Tunesmith has trained and saved for every model of test/golden/families, and compares logits.

    python scripts/python/check_families.py

Written for torch 2.13.0 and transformers 5.18.0; run from the repository. scripts/parity/save-families.ts trains each
model for three steps on the CPU in float32 and saves it, with the logits that it computes then. Here Transformers loads
the folder as anybody would; no weight may be missing or unexpected, and the logits must agree within 1e-5. Nothing is left
behind. Exits with 1 where something differs.
"""

import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, logging

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "test" / "golden" / "families"


@torch.no_grad()
def check(name: str, folder: pathlib.Path) -> bool:
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = {kind: keys for kind, keys in report.items() if keys}
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tokens, bounds = file.get_tensor("tokens").long(), file.get_tensor("cu_seqlens").tolist()
        before = file.get_tensor("logits")
    parts = [model(input_ids=tokens[None, begin:end], use_cache=False).logits[0] for begin, end in zip(bounds, bounds[1:])]
    theirs = torch.cat(parts)
    ours = torch.frombuffer(bytearray((folder / "logits.f32").read_bytes()), dtype=torch.float32).reshape(theirs.shape)
    error = ((ours - theirs).norm() / theirs.norm()).item()
    moved = ((before - theirs).norm() / theirs.norm()).item()
    good = error < 1e-5 and moved > 1e-2 and not problems
    print(f"{name:22} {type(model).__name__:22} difference {error:.1e}, moved by training {moved:.2f} {problems or ''} {'' if good else 'WRONG'}")
    return good


def main() -> int:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as parent:
        command = ["npx", "tsx", "scripts/parity/save-families.ts", parent]
        subprocess.run(command, cwd=ROOT, check=True)
        names = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))
        results = [check(name, pathlib.Path(parent) / name) for name in names]
    print(f"{sum(results)} of {len(results)} agree")
    return 0 if all(results) else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
