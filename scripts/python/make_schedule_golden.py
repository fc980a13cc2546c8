"""Learning rates of Transformers' get_scheduler for test/golden/schedule.json.

    python scripts/python/make_schedule_golden.py

Each case runs a real LambdaLR over a real optimizer and records the rate every optimizer step uses.
"""

import json
import math
from pathlib import Path

import torch
import transformers
from transformers import TrainingArguments, get_scheduler

GOLDEN = Path(__file__).resolve().parents[2] / "test" / "golden" / "schedule.json"


def rates(name, total, warmup, peak, minimum):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    kwargs = {}
    if name == "cosine" and minimum > 0:
        name, kwargs = "cosine_with_min_lr", {"min_lr": minimum}
    elif name == "linear" and minimum > 0:
        name, kwargs = "polynomial", {"power": 1.0, "lr_end": minimum}
    elif name == "constant":
        name = "constant_with_warmup"
    scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=kwargs)
    result = []
    for _ in range(total):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return result


def main():
    cases = []
    for name in ("cosine", "linear", "constant"):
        for total, warmup in ((1, 0), (7, 0), (7, 1), (20, 5), (20, 20), (12, 30)):
            for peak, minimum in ((2e-5, 0.0), (1e-3, 1e-4)):
                if name == "constant" and minimum > 0:
                    continue
                if name == "linear" and minimum > 0 and warmup >= total:
                    continue  # 'polynomial' divides by zero there
                cases.append(
                    {
                        "schedule": name,
                        "totalSteps": total,
                        "warmupSteps": warmup,
                        "learningRate": peak,
                        "minLearningRate": minimum,
                        "rates": rates(name, total, warmup, peak, minimum),
                    }
                )
    ratios = []
    for total in (1, 10, 33, 100, 313, 1000):
        for ratio in (0.0, 0.03, 0.1, 0.5, 0.999):
            steps = TrainingArguments(output_dir="unused", warmup_steps=ratio).get_warmup_steps(total)
            assert steps == math.ceil(total * ratio)
            ratios.append({"totalSteps": total, "ratio": ratio, "warmupSteps": steps})
    document = {"transformers": transformers.__version__, "cases": cases, "warmupRatios": ratios}
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
