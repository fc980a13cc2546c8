"""Writes test/golden/losses.txt: losses and gradients of PyTorch, for native/test/cross_entropy_test.cc.

    python scripts/python/make_loss_golden.py

Label smoothing is torch.nn.functional.cross_entropy's; z-loss is added to it as z · logsumexp² (arXiv 2204.02311,
section 5); DFT is the loss of TRL 1.13 (trl/trainer/sft_trainer.py, dft_loss): -p.detach() · log p. Gradients are
autograd's, in float64. Made with torch 2.13.0.

Format, white-space separated: rows, vocabulary, logits, targets; then per case label smoothing, z-loss, dft (0 or 1),
loss of every row, gradient of their sum.
"""

import pathlib

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = [(0.0, 0.0, 0), (0.1, 0.0, 0), (0.0, 1e-2, 0), (0.3, 5e-3, 0), (0.0, 0.0, 1)]


def loss(logits, targets, smoothing, z, dft):
    if dft:
        chosen = torch.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return -chosen.exp().detach() * chosen
    value = torch.nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    return value + z * torch.logsumexp(logits, -1) ** 2


def hexes(values):
    return " ".join(v.hex() for v in values.detach().reshape(-1).tolist())


def main():
    torch.manual_seed(1)
    logits = (3 * torch.randn(4, 11)).float().double().requires_grad_()
    targets = torch.tensor([int(logits[0].argmax()), 3, 10, 0])
    lines = ["4 11", hexes(logits), " ".join(str(t) for t in targets.tolist())]
    for smoothing, z, dft in CASES:
        logits.grad = None
        rows = loss(logits, targets, smoothing, z, dft)
        rows.sum().backward()
        lines += [f"{smoothing.hex()} {z.hex()} {dft}", hexes(rows), hexes(logits.grad)]
    (ROOT / "test/golden/losses.txt").write_text("\n".join(lines) + "\n")


main()
