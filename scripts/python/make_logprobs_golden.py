"""TRL's own reference log-probabilities of preference pairs under stories260K: test/golden/logprobs.json.

    python scripts/python/make_logprobs_golden.py

Written for torch 2.13.0, transformers 5.18.0 and trl 1.13.0; CPU, one thread, float32 (bf16=False). Each case is a
dataset in one of TRL's layouts; DPOTrainer prepares it and computes `ref_chosen_logps` and `ref_rejected_logps` with
precompute_ref_log_probs. The token ids it made are kept too, so that a difference in the boundary is seen as one.
"""

import json
import pathlib
import tempfile

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATH = ROOT / "test" / "golden" / "logprobs.json"
STORIES = ROOT.parent / "shared" / "models" / "stories260K"

TEMPLATE = """{%- for tool in tools or [] %}{{ 'Tool: ' + tool.function.name + '\\n' }}{% endfor %}
{%- for message in messages %}{{ message.role + ': ' + message.content + eos_token + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"""


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


LONG = " Then they went home, and they were happy." * 3
TEXTS = [
    {
        "prompt": "Once upon a time",
        "chosen": ", there was a little girl named Lily.",
        "rejected": " the car ate seven numbers.",
    },
    {"prompt": "The dog saw a ball. He wanted to", "chosen": " play with it.", "rejected": " be a big blue sea." + LONG},
    # The boundary lies inside a word, an answer ends in eos already, another begins with the whole other one.
    {"prompt": "Tom was very ha", "chosen": "ppy.</s>", "rejected": "rd to find in the park."},
    {"prompt": "“Mom, look!” said", "chosen": " Ben. “A bird!” 😀", "rejected": " Ben."},
]
MESSAGES = [
    {
        "prompt": [user("Tell me a story.")],
        "chosen": [assistant("Once upon a time, there was a cat.")],
        "rejected": [assistant("No." + LONG)],
    },
    {
        "prompt": [{"role": "system", "content": "Be kind."}, user("Hi"), assistant("Hello!"), user("What is a dog?")],
        "chosen": [assistant("A dog is a friend."), user("And a cat?"), assistant("A friend too.")],
        "rejected": [assistant("A thing.")],
    },
]
CASES = {
    "text": {"rows": TEXTS},
    "text, implicit": {
        "rows": [
            {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in TEXTS
        ]
    },
    "messages": {"rows": MESSAGES},
    "messages, implicit": {
        "rows": [
            {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in MESSAGES
        ]
    },
    "tools": {"rows": [MESSAGES[0] | {"tools": [{"type": "function", "function": {"name": "weather"}}]}]},
    "text, cut": {"rows": TEXTS[:2], "maxLength": 40},
    "messages, cut": {"rows": MESSAGES[:1], "maxLength": 50},
}


def score(rows: list[dict], max_length: int | None) -> dict:
    model = AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    tokenizer.chat_template = TEMPLATE
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder,
            precompute_ref_log_probs=True,
            per_device_train_batch_size=2,
            max_length=max_length,
            bf16=False,
            use_cpu=True,
            report_to=[],
        )
        trainer = DPOTrainer(
            model, args=arguments, processing_class=tokenizer, train_dataset=Dataset.from_list(rows)
        )
        data = trainer.train_dataset
        names = ["prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps"]
        return {name: list(data[name]) for name in names}


def main() -> None:
    torch.set_num_threads(1)
    cases = []
    for name, case in CASES.items():
        result = score(case["rows"], case.get("maxLength"))
        print(name, [round(value, 3) for value in result["ref_chosen_logps"] + result["ref_rejected_logps"]])
        cases.append({"name": name} | case | result)
    PATH.write_text(json.dumps({"template": TEMPLATE, "cases": cases}, ensure_ascii=False) + "\n")
    print(f"{PATH}: {PATH.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
