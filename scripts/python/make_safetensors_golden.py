"""Writes test/golden/safetensors/: small files by the safetensors library, with the values they hold in expected.json.

Run in the development environment: python scripts/python/make_safetensors_golden.py
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).parents[2] / "test" / "golden" / "safetensors"
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        tensors[f"{name}.matrix"] = torch.randn(3, 5, generator=generator).to(dtype)
        tensors[f"{name}.special"] = torch.tensor([0.0, -0.0, 1.0, -2.5, 6e-8, 1e-40, 65504.0, float("inf")]).to(dtype)
    tensors["empty"] = torch.zeros(0, 4)
    tensors["scalar"] = torch.tensor(7.0)
    tensors["token_ids"] = torch.arange(3)
    save_file(tensors, FOLDER / "model.safetensors", metadata={"format": "pt"})
    expected = {
        name: dict(dtype=str(tensor.dtype).removeprefix("torch."), shape=list(tensor.shape), values=[repr(v) for v in tensor.double().flatten().tolist()])
        for name, tensor in tensors.items()
    }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
