"""Writes test/golden/nf4.txt: matrices quantised to NF4 with double quantisation, for native/test/nf4_test.cc.

    python scripts/python/make_nf4_golden.py

The algorithm is transcribed from the published sources of bitsandbytes (csrc/kernels.cu: dQuantizeNF4, dQuantize,
kQuantizeBlockwise; functional.py: create_dynamic_map, quantize_4bit), not run by it: made on a machine where the package
cannot be installed, with numpy and torch 2.13.0. Two things differ on purpose, and are in no other case but `zeros` and
the offset's last bit: a block of zeros takes the code of 0 (bitsandbytes divides by zero and stores that of -1), and the
mean of the scales is summed in float64 (bitsandbytes sums in float32, in an order that depends on the device).

Format, white-space separated: the 256 entries of the dynamic code as float32 bits in hex, then per case: name, number of
values, values as float32 bits (none for `hashed`, which the test makes itself), codes as hex bytes, scales' codes as hex
bytes, group absmax and offset as float32 bits, plain absmax as float32 bits.
"""

import pathlib

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK, GROUP = 64, 256
VALUES = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], np.float32)  # fmt: skip
# The pivots of dQuantizeNF4, in ascending order: every comparison in its tree is `x > pivot`.
PIVOTS = np.array(
    [-0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544, -0.23460740596055984,
     -0.13791173323988914, -0.045525018125772476, 0.03979014977812767, 0.1202552504837513, 0.2035212516784668,
     0.2920137718319893, 0.3893125355243683, 0.5016634166240692, 0.6427869200706482, 0.8614784181118011],
    np.float32)  # fmt: skip


def dynamic_map() -> np.ndarray:
    """create_dynamic_map(signed=True, max_exponent_bits=7, total_bits=8)."""
    data = []
    for i in range(7):
        boundaries = torch.linspace(0.1, 1, 2**i + 1)
        means = (boundaries[:-1] + boundaries[1:]) / 2.0
        data += ((10 ** (-6 + i)) * means).tolist()
        data += (-(10 ** (-6 + i)) * means).tolist()
    data += [0, 1.0]
    data.sort()
    return torch.tensor(data).numpy()


DYNAMIC = dynamic_map()


def quantize_dynamic(x: np.float32) -> int:
    """dQuantize<0>."""
    pivot, upper_pivot, lower_pivot = 127, 255, 0
    lower, upper = np.float32(-1), np.float32(1)
    value = DYNAMIC[pivot]
    for step in (64, 32, 16, 8, 4, 2, 1):
        if x > value:
            lower_pivot, lower = pivot, value
            pivot += step
        else:
            upper_pivot, upper = pivot, value
            pivot -= step
        value = DYNAMIC[pivot]
    if upper_pivot == 255:
        upper = DYNAMIC[upper_pivot]
    if lower_pivot == 0:
        lower = DYNAMIC[lower_pivot]
    if x > value:
        return upper_pivot if x > (upper + value) * np.float32(0.5) else pivot
    return lower_pivot if x < (lower + value) * np.float32(0.5) else pivot


def quantize_nf4(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes [n] and absmax [blocks], as kQuantizeBlockwise<NF4> has them."""
    codes, absmax = [], []
    for first in range(0, len(values), BLOCK):
        block = values[first : first + BLOCK]
        largest = np.abs(block).max()
        absmax.append(largest)
        if largest == 0:
            codes += [7] * len(block)
            continue
        codes += (block[:, None] * (np.float32(1) / largest) > PIVOTS).sum(1).tolist()
    return np.array(codes, np.uint8), np.array(absmax, np.float32)


def quantize_scales(absmax: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """quantize_4bit's compress_statistics: codes [blocks], absmax of groups, offset."""
    offset = np.float32(absmax.astype(np.float64).mean())
    centred = absmax - offset
    codes, groups = [], []
    for first in range(0, len(centred), GROUP):
        group = centred[first : first + GROUP]
        groups.append(np.abs(group).max())
        with np.errstate(divide="ignore", invalid="ignore"):
            codes += [quantize_dynamic(x) for x in group * (np.float32(1) / groups[-1])]
    return np.array(codes, np.uint8), np.array(groups, np.float32), offset


def dequantized(matrix: np.ndarray) -> np.ndarray:
    """What NF4 with double quantisation leaves of a float32 matrix: dequantize_4bit, every product and sum rounded."""
    flat = np.ascontiguousarray(matrix, np.float32).reshape(-1)
    codes, absmax = quantize_nf4(flat)
    scale_codes, groups, offset = quantize_scales(absmax)
    scales = DYNAMIC[scale_codes] * np.repeat(groups, GROUP)[: len(scale_codes)] + offset
    return (VALUES[codes] * np.repeat(scales, BLOCK)[: len(codes)]).reshape(matrix.shape)


def bits(values: np.ndarray) -> str:
    return " ".join(f"{word:08x}" for word in np.atleast_1d(np.asarray(values, np.float32)).view(np.uint32))


def hashed(count: int) -> np.ndarray:
    """[count] float32 of more than one group; the same integer arithmetic and one rounding are in the test."""

    def mix(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.uint32) * np.uint32(0x9E3779B1)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x85EBCA6B)
        return x ^ (x >> np.uint32(13))

    index = np.arange(count)
    value = (mix(index) >> np.uint32(8)).astype(np.int32) - 2**23
    scale = mix(index // BLOCK + 2**20) >> np.uint32(8)
    return value.astype(np.float32) * scale.astype(np.float32) * np.float32(2.0**-50)


def cases() -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    normal = lambda count, deviation=0.02: (random.standard_normal(count) * deviation).astype(np.float32)
    bfloat16 = torch.from_numpy(normal(7 * BLOCK)).bfloat16().float().numpy()
    # Values on every pivot and one float to either side of it; 1 makes the scale 1.
    edges = np.concatenate([PIVOTS, np.nextafter(PIVOTS, np.float32(2)), np.nextafter(PIVOTS, np.float32(-2)), VALUES])
    edges = np.concatenate([np.append(edges, np.float32(1)), np.zeros(BLOCK - len(edges) - 1, np.float32)])
    zeros = normal(4 * BLOCK)
    zeros[BLOCK : 2 * BLOCK] = 0
    return {
        "one": normal(1),
        "odd": normal(5 * BLOCK + 17),
        "edges": edges,
        "zeros": zeros,
        "bfloat16": bfloat16,
        "constant": np.full(3 * BLOCK, -0.25, np.float32),
        "tiny": normal(2 * BLOCK, 1e-37),
        "hashed": hashed(300 * BLOCK + 5),
    }


def main() -> None:
    # The pivots are the middles between neighbours: "nearest" and the tree are the same thing.
    assert np.array_equal(PIVOTS, (VALUES[:-1] + VALUES[1:]) * np.float32(0.5))
    lines = [bits(DYNAMIC)]
    for name, values in cases().items():
        codes, absmax = quantize_nf4(values)
        scale_codes, groups, offset = quantize_scales(absmax)
        packed = np.append(codes, np.uint8(0))[: len(codes) + len(codes) % 2].reshape(-1, 2)
        packed = packed[:, 0] << 4 | packed[:, 1]
        lines += [f"{name} {len(values)}", "" if name == "hashed" else bits(values), packed.tobytes().hex()]
        lines += [scale_codes.tobytes().hex(), bits(groups), bits(offset), bits(absmax)]
    path = ROOT / "test" / "golden" / "nf4.txt"
    path.write_text("\n".join(lines) + "\n")
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
