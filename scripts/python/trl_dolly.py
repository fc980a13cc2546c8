"""Fine-tunes stories260K on 1,000 rows of dolly-15k for 2 epochs with TRL, for scripts/parity/dolly.ts to repeat.

    python scripts/python/trl_dolly.py OUT       # writes OUT/train.jsonl, OUT/eval.jsonl and OUT/trl.json

Written for torch 2.13.0, transformers 5.18.0, trl 1.13.0. The held-out loss is sum(nll) / sum(tokens) over the assistant
tokens of 200 further rows, taken before and after training, conversation by conversation, without padding.
"""

import argparse
import json
import pathlib

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from dolly import MODEL, TEMPLATE, fitting, write_rows

TRAIN, HELD_OUT, EPOCHS, BATCH, LONGEST = 1000, 200, 2, 16, 512
LEARNING_RATE, WARMUP = 1e-3, 10


@torch.no_grad()
def held_out_loss(model, tokenizer, rows: list[dict]) -> float:
    model.eval()
    total, count = 0.0, 0
    for row in rows:
        encoded = tokenizer.apply_chat_template(
            row["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        ids = torch.tensor(encoded["input_ids"])
        mask = torch.tensor(encoded["assistant_masks"])[1:].bool()
        logits = model(input_ids=ids[None]).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        total += nll[mask].double().sum().item()
        count += mask.sum().item()
    return total / count


def main(out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.chat_template = TEMPLATE.read_text()
    rows = [row for (_, row, _), _ in zip(fitting(tokenizer, LONGEST), range(TRAIN + HELD_OUT))]
    assert len(rows) == TRAIN + HELD_OUT
    train, held_out = rows[:TRAIN], rows[TRAIN:]
    write_rows(out / "train.jsonl", train)
    write_rows(out / "eval.jsonl", held_out)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    before = held_out_loss(model, tokenizer, held_out)
    config = SFTConfig(
        output_dir=str(out / "trl"),
        assistant_only_loss=True,
        loss_type="nll",
        max_length=LONGEST,
        packing=False,
        bf16=False,
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=BATCH,
        num_train_epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=WARMUP,
        weight_decay=0.0,
        optim="adamw_torch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SFTTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(train), processing_class=tokenizer
    )
    trainer.train()
    result = {
        "before": before,
        "after": held_out_loss(model, tokenizer, held_out),
        "steps": trainer.state.global_step,
        "batch": BATCH,
        "epochs": EPOCHS,
        "learningRate": LEARNING_RATE,
        "warmup": WARMUP,
    }
    (out / "trl.json").write_text(json.dumps(result, indent=1))
    print(result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="TRL's side of the dolly-15k comparison")
    parser.add_argument("out", type=pathlib.Path)
    torch.set_num_threads(1)
    main(parser.parse_args().out)
