"""50 optimizer steps of TRL's SFTTrainer in float32, for scripts/parity/trl.ts to repeat and compare.

    python scripts/python/trl_parity.py OUT       # writes OUT/VARIANT.json per variant, and OUT/trl.json

Written for torch 2.13.0, transformers 5.18.0, trl 1.13.0. Three variants: `plain`; `decay`, with ten steps of warmup and
weight decay; `accumulation`, four micro-batches per step over conversations of very uneven length. Each runs twice, with
both attention paths of Transformers, so that PyTorch's distance from itself stands beside ours.

OUT/VARIANT.json has everything; OUT/trl.json, a copy of which is test/golden/trl.json, has what a repetition needs: the
settings, the lines of dolly-15k (from 1) in their order, and the loss and gradient norm of every step.

TRL rounds the loss it logs. Here it is the sum of what training_step returns, before any rounding.
"""

import argparse
import json
import pathlib

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from dolly import MODEL, TEMPLATE, fitting

STEPS = 50
COMMON = {"learning_rate": 5e-4, "lr_scheduler_type": "linear", "warmup_steps": 0, "weight_decay": 0.0}
VARIANTS = {
    # name: settings, conversations per forward pass, forward passes per step, longest conversation in tokens
    "plain": (COMMON, 8, 1, 256),
    "decay": (COMMON | {"warmup_steps": 10, "weight_decay": 0.1}, 8, 1, 256),
    "accumulation": (COMMON, 4, 4, 512),
}


class Recorder(TrainerCallback):
    """Gradient norm and learning rate of every step as they are, the loss through `parts`."""

    def __init__(self):
        self.parts, self.steps = [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "grad_norm" in logs:
            self.steps.append(
                {"loss": sum(self.parts), "gradNorm": logs["grad_norm"], "learningRate": logs["learning_rate"]}
            )
            self.parts = []


class RecordingTrainer(SFTTrainer):
    recorder: Recorder

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.recorder.parts.append(loss.double().item())
        return loss


def run(rows: list[dict], settings: dict, batch: int, accumulation: int, attention: str, output: str) -> list[dict]:
    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.chat_template = TEMPLATE.read_text()
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation=attention)
    config = SFTConfig(
        output_dir=output,
        assistant_only_loss=True,
        loss_type="nll",
        max_length=model.config.max_position_embeddings,
        packing=False,
        bf16=False,
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=STEPS,
        max_grad_norm=1.0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        optim="adamw_torch",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **settings,
    )
    recorder = Recorder()
    trainer = RecordingTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[recorder],
    )
    trainer.recorder = recorder
    trainer.train()
    assert len(recorder.steps) == STEPS
    return recorder.steps


def main(out: pathlib.Path, variants: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.chat_template = TEMPLATE.read_text()
    golden = {}
    for name in variants:
        settings, batch, accumulation, longest = VARIANTS[name]
        count = STEPS * batch * accumulation
        chosen = [chosen for chosen, _ in zip(fitting(tokenizer, longest), range(count))]
        assert len(chosen) == count
        rows = [row for _, row, _ in chosen]
        runs = {a: run(rows, settings, batch, accumulation, a, str(out / "trl")) for a in ["eager", "sdpa"]}
        lengths = sorted(length for _, _, length in chosen)
        summary = {
            "settings": settings | {"conversationsPerForward": batch, "accumulation": accumulation, "steps": STEPS},
            "lengths": {"shortest": lengths[0], "median": lengths[len(lengths) // 2], "longest": lengths[-1]},
            "lines": [line for line, _, _ in chosen],
            **runs,
        }
        (out / f"{name}.json").write_text(json.dumps(summary, indent=1))
        worst = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(*runs.values()))
        first, last = runs["eager"][0]["loss"], runs["eager"][-1]["loss"]
        golden[name] = {key: summary[key] for key in ["settings", "lines", "eager"]}
        (out / "trl.json").write_text(json.dumps(golden) + "\n")
        print(f"{name}: loss {first:.6f} -> {last:.6f}; eager against sdpa {worst:.1e}; lengths {summary['lengths']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Reference runs of TRL")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    torch.set_num_threads(1)
    options = parser.parse_args()
    main(options.out, options.variants)
