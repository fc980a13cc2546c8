"""Writes test/golden/optimizers.txt: 50 steps of every optimizer, for native/test/optimizer_golden_test.cc.

    python scripts/python/make_optimizer_golden.py

AdamW, SGD and Muon are torch.optim's, Adafactor is Transformers', all in float64. torch's Muon orthogonalises in bfloat16;
here its Newton-Schulz iteration is the same code without that cast (and is compared with the original one below). Lion is
transcribed from Algorithm 2 of arXiv 2302.06675. AdamW in 8 bits is transcribed from bitsandbytes' CUDA kernel
(csrc/kernels.cu: kOptimizerStatic8bit2StateBlockwise, quantize_2D; functional.py: create_dynamic_map) in numpy float32,
where a block of zeros, which there is 0 / 0, takes the codes of 0.

Made with torch 2.13.0, transformers 5.18.0 and numpy. Weights and gradients come from value() on both sides.

Format, white-space separated, per case: name, rows, columns, then the weights after steps 1, 10 and 50 as
hexadecimal floats; of adamw_8bit then the codes of both moments and the absmax of their blocks.
"""

import math
import pathlib

import numpy as np
import torch
from torch.optim import _muon
from transformers.optimization import Adafactor

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS, SHOWN = 50, (1, 10, 50)
RATE, DECAY, BETAS, EPSILON, MOMENTUM = 1e-2, 0.1, (0.9, 0.95), 1e-8, 0.9


def mix(x: int) -> int:
    """The finaliser of MurmurHash3."""
    x &= 0xFFFFFFFF
    x = (x ^ (x >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ (x >> 16)


def value(step: int, index: int) -> float:
    """Exact in float32. Step 0 gives the weights; gradients differ in size by 2^12, and some are 0."""
    uniform = (mix(step * 100003 + index) >> 8) * 2.0**-24 - 0.5
    if step == 0:
        return uniform
    return 0.0 if index % 11 == 3 else uniform * 2.0 ** -(index % 13)


def tensor(step: int, shape) -> torch.Tensor:
    return torch.tensor([value(step, i) for i in range(math.prod(shape))], dtype=torch.float64).reshape(shape)


def rate(step: int) -> float:
    return RATE * (1 - (step - 1) / 60)


def run(shape, make):
    parameter = torch.nn.Parameter(tensor(0, shape))
    optimizer = make([parameter])
    shown = []
    for step in range(1, STEPS + 1):
        optimizer.param_groups[0]["lr"] = rate(step)
        parameter.grad = tensor(step, shape)
        optimizer.step()
        if step in SHOWN:
            shown.append(parameter.detach().clone())
    return shown


class Lion(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": RATE})

    @torch.no_grad()
    def step(self):
        (p,) = self.param_groups[0]["params"]
        m = self.state[p].setdefault("m", torch.zeros_like(p))
        update = torch.sign(BETAS[0] * m + (1 - BETAS[0]) * p.grad)
        p.sub_(self.param_groups[0]["lr"] * (update + DECAY * p))
        m.copy_(BETAS[1] * m + (1 - BETAS[1]) * p.grad)


original_newton_schulz = _muon._zeropower_via_newtonschulz


def newton_schulz(grad, coefficients, steps, eps):
    """_zeropower_via_newtonschulz without `.bfloat16()`."""
    a, b, c = coefficients
    x = grad.clone()
    if grad.size(0) > grad.size(1):
        x = x.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    result = x.T if grad.size(0) > grad.size(1) else x
    rounded = original_newton_schulz(grad, coefficients, steps, eps).double()
    assert (result - rounded).norm() / result.norm() < 0.05, "not torch's own, up to bfloat16"
    return result


def dynamic_map(signed: bool) -> np.ndarray:
    data = []
    for i in range(7):
        boundaries = torch.linspace(0.1, 1, 2**i + 1 if signed else 2 ** (i + 1) + 1)
        means = (boundaries[:-1] + boundaries[1:]) / 2.0
        data += ((10 ** (-6 + i)) * means).tolist()
        if signed:
            data += (-(10 ** (-6 + i)) * means).tolist()
    data += [0, 1.0]
    assert len(data) == 256
    data.sort()
    return torch.tensor(data).numpy()


def quantize_2d(code: np.ndarray, signed: bool, x: np.float32) -> int:
    pivot, upper_pivot, lower_pivot = 127, 255, 0
    lower, upper = np.float32(-1.0 if signed else 0.0), np.float32(1.0)
    val = code[pivot]
    for i in (64, 32, 16, 8, 4, 2, 1):
        if x > val:
            lower_pivot, lower = pivot, val
            pivot += i
        else:
            upper_pivot, upper = pivot, val
            pivot -= i
        val = code[pivot]
    if x > val:
        return upper_pivot if x > (upper + val) * np.float32(0.5) else pivot
    return lower_pivot if x < (lower + val) * np.float32(0.5) else pivot


def adamw_8bit(size: int):
    f = np.float32
    code1, code2 = dynamic_map(True), dynamic_map(False)
    blocks = (size + 255) // 256
    state1, state2 = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    absmax1, absmax2 = np.zeros(blocks, f), np.zeros(blocks, f)
    p = np.array([value(0, i) for i in range(size)], f)
    beta1, beta2 = f(BETAS[0]), f(BETAS[1])
    rest1, rest2 = f(1 - BETAS[0]), f(1 - BETAS[1])
    shown = []
    for step in range(1, STEPS + 1):
        lr = rate(step)
        correction1, correction2 = 1 - BETAS[0] ** step, math.sqrt(1 - BETAS[1] ** step)
        step_size, epsilon, keep = f(lr * correction2 / correction1), f(correction2 * EPSILON), f(1 - lr * DECAY)
        g = np.array([value(step, i) for i in range(size)], f)
        for block in range(blocks):
            at = slice(256 * block, min(size, 256 * block + 256))
            s2 = code2[state2[at]] * absmax2[block]
            s2 = s2 * beta2 + rest2 * g[at] * g[at]
            s1 = code1[state1[at]] * absmax1[block]
            s1 = s1 * beta1 + rest1 * g[at]
            absmax1[block], absmax2[block] = np.abs(s1).max(), np.abs(s2).max()
            p[at] = p[at] - step_size * (s1 / (np.sqrt(s2) + epsilon))
            p[at] = p[at] * keep
            for j in range(s1.size):
                c1 = quantize_2d(code1, True, s1[j] / absmax1[block] if absmax1[block] > 0 else f(0))
                c2 = quantize_2d(code2, False, s2[j] / absmax2[block] if absmax2[block] > 0 else f(0))
                if np.signbit(code1[c1]) != np.signbit(s1[j]) and absmax1[block] > 0:
                    c1 += 1 if s1[j] > 0 else -1
                state1[at.start + j], state2[at.start + j] = c1 % 256, c2
        assert p.dtype == f and s1.dtype == f and s2.dtype == f
        if step in SHOWN:
            shown.append(p.copy())
    return shown, state1, state2, absmax1, absmax2


def hexes(values) -> str:
    return " ".join(float(v).hex() for v in np.asarray(values).reshape(-1))


def main():
    _muon._zeropower_via_newtonschulz = newton_schulz
    optim, lines = torch.optim, []

    def adamw(p):
        return optim.AdamW(p, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY)

    def adafactor(p):
        return Adafactor(p, lr=RATE, weight_decay=DECAY, scale_parameter=False, relative_step=False)

    def muon(p):
        return optim.Muon(p, lr=RATE, weight_decay=DECAY, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")

    cases = [
        ("adamw", (5, 13), adamw),
        ("lion", (5, 13), Lion),
        ("sgd", (5, 13), lambda p: optim.SGD(p, lr=RATE, weight_decay=DECAY)),
        ("momentum", (5, 13), lambda p: optim.SGD(p, lr=RATE, weight_decay=DECAY, momentum=MOMENTUM)),
        ("adafactor", (12, 7), adafactor),
        ("adafactor", (7, 33), adafactor),
        ("adafactor", (1, 9), adafactor),
        ("adafactor_vector", (37,), adafactor),
        ("muon", (12, 7), muon),
        ("muon", (7, 19), muon),
        ("muon", (9, 9), muon),
        ("muon", (1, 6), muon),
    ]
    for name, shape, make in cases:
        shown = run(shape, make)
        rows, columns = (1, *shape)[-2:]
        lines.append(f"{name} {rows} {columns}\n" + "\n".join(hexes(w) for w in shown))
    shown, state1, state2, absmax1, absmax2 = adamw_8bit(700)
    codes = "\n".join(" ".join(str(c) for c in state) for state in (state1, state2))
    lines.append(
        "adamw_8bit 1 700\n" + "\n".join(hexes(w) for w in shown) + f"\n{codes}\n{hexes(absmax1)}\n{hexes(absmax2)}"
    )
    (ROOT / "test/golden/optimizers.txt").write_text("\n".join(lines) + "\n")


main()
