"""TRL's side of bench/prepare: SFTTrainer's own preparation of the same file, one JSON line per command.

Written for trl 1.13.0, transformers 5.18.0, datasets 5. `cold` times reading the file into a Dataset and, apart from
that, `_prepare_dataset` with assistant_only_loss, without packing and truncation, which would only add passes.
"""

import argparse
import gc
import json
import struct
import sys
import time
from importlib.metadata import version

import datasets
from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer


def read(path: str) -> Dataset:
    with open(path, encoding="utf-8") as lines:
        return Dataset.from_list([json.loads(line) for line in lines])


def make_trainer(tokenizer, dataset: Dataset, output: str) -> SFTTrainer:
    # The model is never run: the trainer only wants one.
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    config = SFTConfig(
        output_dir=output,
        assistant_only_loss=True,
        loss_type="nll",
        max_length=None,
        packing=False,
        bf16=False,
        report_to=[],
        use_cpu=True,
    )
    return SFTTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)


def main(options: argparse.Namespace) -> None:
    out = sys.stdout
    sys.stdout = sys.stderr
    # A second pass must not find the first one's result on disk.
    datasets.disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    with open(options.template, encoding="utf-8") as file:
        tokenizer.chat_template = file.read()
    trainer = make_trainer(tokenizer, read(options.data).select(range(2)), options.output)

    def answer(command: dict) -> dict:
        gc.collect()
        began = time.perf_counter()
        dataset = read(options.data)
        reading = time.perf_counter() - began
        cpu = time.process_time()
        began = time.perf_counter()
        prepared = trainer._prepare_dataset(dataset, tokenizer, trainer.args, False, None, "train")
        seconds = time.perf_counter() - began
        cpu = time.process_time() - cpu
        if "path" in command:
            with open(command["path"], "wb") as file:
                for row in prepared:
                    ids, labels = row["input_ids"], row["labels"]
                    file.write(struct.pack(f"<i{len(ids)}i", len(ids), *ids))
                    file.write(bytes(label != -100 for label in labels))
        return {"seconds": seconds, "cpu": cpu, "reading": reading, "rows": len(prepared)}

    def say(value: dict) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    say({"versions": {name: version(name) for name in ["trl", "transformers", "tokenizers", "datasets"]}})
    for line in sys.stdin:
        say(answer(json.loads(line)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="TRL's side of bench/prepare")
    for name in ["data", "tokenizer", "template", "output"]:
        parser.add_argument(f"--{name}", required=True)
    main(parser.parse_args())
