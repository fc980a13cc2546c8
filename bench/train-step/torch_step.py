"""The PyTorch side of bench/train-step: one optimizer step of LlamaForCausalLM, commanded over stdin and stdout.

    python torch_step.py --make FOLDER [--layers N]        random weights in the shape of SmolLM2-135M, then exit
    python torch_step.py --model FOLDER --threads 2 [--variant eager|rows|compile]

Written for torch 2.13.0 and transformers 5.18.0. Each line on stdin is a JSON command, each line on stdout its answer:
    {"do": "batch", "tokens": [[...]], "weights": [[...]]}   [B, L] each; the weight of a token as a target, 0 or 1
    {"do": "check"}      {"loss", "gradNorm"}                forward and backward, nothing is applied
    {"do": "step", "count": N}      {"seconds": [...], "loss"}
    {"do": "memory"}     {"peak"}                            bytes: VmHWM, loading included

The step is what a careful PyTorch user runs: float32 parameters, bfloat16 autocast, SDPA, labels of -100 outside the
answers, zero_grad(set_to_none=True), clip_grad_norm_, fused AdamW with the decay groups of Transformers.
Variants beyond that: `rows` takes the hidden states of the supervised rows before the output projection by hand,
`compile` wraps the model in torch.compile.
"""

import argparse
import json
import math
import re
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY, MAX_GRAD_NORM = 1e-4, (0.9, 0.999), 1e-8, 0.1, 1.0


def smollm2_135m(layers: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        initializer_range=0.041666666666666664,
        bos_token_id=1,
        eos_token_id=2,
    )


def make(folder: str, layers: int) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(smollm2_135m(layers)).save_pretrained(folder)


def peak_bytes() -> int:
    with open("/proc/self/status") as status:
        return int(re.search(r"^VmHWM:\s+(\d+) kB", status.read(), re.M).group(1)) * 1024


class Side:
    def __init__(self, folder: str, variant: str):
        self.variant = variant
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        self.model.train()
        self.model.config.use_cache = False
        self.call = torch.compile(self.model) if variant == "compile" else self.model
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, fused=True)

    def batch(self, tokens: list[list[int]], weights: list[list[int]]) -> None:
        self.tokens = torch.tensor(tokens)
        self.labels = torch.where(torch.tensor(weights) > 0, self.tokens, -100)
        shifted = torch.nn.functional.pad(self.labels[:, 1:], (0, 1), value=-100).reshape(-1)
        self.rows = (shifted != -100).nonzero()[:, 0]
        self.targets = shifted[self.rows]

    def backward(self) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if self.variant == "rows":
                hidden = self.model.model(input_ids=self.tokens).last_hidden_state.flatten(0, 1)[self.rows]
                logits = self.model.lm_head(hidden).float()
                loss = torch.nn.functional.cross_entropy(logits, self.targets)
            else:
                loss = self.call(input_ids=self.tokens, labels=self.labels).loss
        loss.backward()
        return loss.detach()

    def check(self) -> dict:
        loss = self.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters()])
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item(), "gradNorm": norm.item()}

    def step(self, count: int) -> dict:
        seconds = []
        for _ in range(count):
            begin = time.perf_counter()
            loss = self.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
            self.optimizer.step()
            seconds.append(time.perf_counter() - begin)
        return {"seconds": seconds, "loss": loss.item()}


def serve(side: Side, threads: int) -> None:
    parameters = sum(p.numel() for p in side.model.parameters())
    hello = {"ready": True, "parameters": parameters, "threads": threads, "version": torch.__version__}
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        match command["do"]:
            case "batch":
                side.batch(command["tokens"], command["weights"])
                answer = {"rows": len(side.rows)}
            case "check":
                answer = side.check()
            case "step":
                answer = side.step(command["count"])
            case "memory":
                answer = {"peak": peak_bytes()}
            case other:
                raise ValueError(f"unknown command {other!r}")
        assert not any(isinstance(v, float) and math.isnan(v) for v in answer.values())
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PyTorch side of bench/train-step")
    parser.add_argument("--make")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", choices=["eager", "rows", "compile"], default="eager")
    options = parser.parse_args()
    if options.make:
        make(options.make, options.layers)
    else:
        torch.set_num_threads(options.threads)
        serve(Side(options.model, options.variant), options.threads)
