"""From Tunesmith's supervised fine-tuning to TRL's DPO: does the exported folder go straight in, with our reference columns?

    python scripts/python/dpo_handover.py

Written for torch 2.13.0, transformers 5.18.0 and trl 1.13.0; CPU, float32 (bf16=False). stories260K is tuned for 20 steps on
../shared/data/preference by `tunesmith train`, `tunesmith logprobs` scores 48 pairs under the result, and DPOTrainer
loads the folder as it is:

1. its own reference log-probabilities must be our columns within 1e-3 absolute or 1e-5 relative per sequence;
2. 5 steps with our columns must have the losses of 5 steps with its own;
3. RewardTrainer must take the same folder: only the head that scores, which no language model has, may be new.

TRL 1.13 reads given columns in its loss, but with precompute_ref_log_probs=True it computes them anyway and stumbles over
the columns that are there. So the trainer is made without, and told afterwards.
"""

import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DATA = SHARED / "data" / "preference" / "rasbt-instruction-data-with-preference.json"
COLUMNS = ["ref_chosen_logps", "ref_rejected_logps"]


def tunesmith(*arguments: str) -> None:
    result = subprocess.run(["npx", "tsx", "lib/cli/main.ts", *arguments], cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"tunesmith {' '.join(arguments)} failed:\n{result.stderr}")
    print(result.stdout.splitlines()[-1])


def write(path: pathlib.Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def trainer_of(folder: pathlib.Path, data, out: pathlib.Path, precompute: bool) -> DPOTrainer:
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {kind: keys for kind, keys in report.items() if keys}
    assert not problems, f"loading: {problems}"
    arguments = DPOConfig(
        output_dir=str(out),
        max_steps=5,
        per_device_train_batch_size=8,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        max_length=512,
        precompute_ref_log_probs=precompute,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        seed=1,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return DPOTrainer(model, args=arguments, processing_class=tokenizer, train_dataset=data)


def losses(trainer: DPOTrainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def reward(folder: pathlib.Path, data, out: pathlib.Path) -> list[float]:
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, output_loading_info=True
    )
    assert set(report["missing_keys"]) == {"score.weight"}, report
    assert not report["mismatched_keys"] and set(report["unexpected_keys"]) <= {"lm_head.weight"}, report
    arguments = RewardConfig(
        output_dir=str(out),
        max_steps=2,
        per_device_train_batch_size=8,
        max_length=512,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trainer = RewardTrainer(model, args=arguments, processing_class=tokenizer, train_dataset=data)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> int:
    torch.set_num_threads(2)
    rows = json.loads(DATA.read_text())
    asked = [row["instruction"] + ("\n" + row["input"] if row["input"] else "") for row in rows]
    short = [i for i, row in enumerate(rows) if len(asked[i] + row["chosen"] + row["rejected"]) < 300]
    short = [i for i in short if rows[i]["chosen"] != rows[i]["rejected"]]
    prompts = {i: [{"role": "user", "content": asked[i]}] for i in short}
    answer = {(i, key): [{"role": "assistant", "content": rows[i][key]}] for i in short for key in ["chosen", "rejected"]}
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        folder = work / "tuned"
        write(work / "train.jsonl", [{"messages": prompts[i] + answer[i, "chosen"]} for i in short])
        config = {"model": str(SHARED / "models" / "stories260K"), "data": {"train": "train.jsonl"}, "output": "tuned"}
        config |= {"maxSteps": 20, "learningRate": 1e-3, "precision": "float32", "chatTemplate": "plain", "threads": 2}
        (work / "config.json").write_text(json.dumps(config))
        tunesmith("train", str(work / "config.json"))
        pairs = [
            {"prompt": prompts[i], "chosen": answer[i, "chosen"], "rejected": answer[i, "rejected"]} for i in short[:48]
        ]
        write(work / "pairs.jsonl", pairs)
        scored = work / "scored.jsonl"
        tunesmith("logprobs", str(folder), str(work / "pairs.jsonl"), f"--output={scored}", "--max-length=512", "--threads=2")

        def load(path: pathlib.Path):
            return load_dataset("json", data_files=str(path), split="train", cache_dir=str(work / "cache"))

        theirs = trainer_of(folder, load(work / "pairs.jsonl"), work / "theirs", precompute=True)
        given = load(scored)
        worst = 0.0
        wrong = 0
        for column in COLUMNS:
            for a, b in zip(given[column], theirs.train_dataset[column], strict=True):
                error = abs(a - b)
                worst = max(worst, error)
                wrong += not (error <= 1e-3 or error <= 1e-5 * abs(b))
        print(f"reference log-probabilities of {len(given)} pairs: largest difference {worst:.1e}, {wrong} outside the tolerance")

        ours = trainer_of(folder, given, work / "ours", precompute=False)
        ours.precompute_ref_logps = True
        ours.ref_model = None
        a, b = losses(ours), losses(theirs)
        print(f"DPO losses with our columns:   {a}\nDPO losses with TRL's columns: {b}")
        same = len(a) == 5 and all(abs(x - y) <= 1e-4 for x, y in zip(a, b, strict=True))
        rewards = reward(folder, load(work / "pairs.jsonl"), work / "reward")
        print(f"RewardTrainer losses: {rewards}")
        assert len(rewards) == 2 and all(math.isfinite(loss) for loss in rewards)
        print("same" if same and wrong == 0 else "DIFFERENT")
        return 0 if same and wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
