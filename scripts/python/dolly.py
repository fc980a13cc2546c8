"""Choosing conversations of dolly-15k that a small model's context holds, for the comparisons with TRL."""

import json
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
MODEL = SHARED / "models" / "stories260K"
ROWS = SHARED / "data" / "dolly-15k" / "dolly-15k-messages.jsonl"
TEMPLATE = ROOT / "scripts" / "parity" / "template.jinja"


def fitting(tokenizer, longest: int) -> Iterator[tuple[int, dict, int]]:
    """(line, row, tokens) of the rows that render to at most `longest` tokens, in the order of the file, each once.

    Lines count from 1. Rows with an empty turn, or that spell a control token, are left out: either side would refuse or read them in its
    own way. `tokenizer` has the template set.
    """
    control = tokenizer.all_special_tokens
    seen = set()
    with ROWS.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            row = json.loads(line)
            texts = [message["content"] for message in row["messages"]]
            text = "".join(texts)
            if line in seen or not all(t.strip() for t in texts) or any(token in text for token in control):
                continue
            seen.add(line)
            # A token is at least a byte: most rows are out before they are tokenised.
            if len(text) > 8 * longest:
                continue
            ids = tokenizer.apply_chat_template(row["messages"])["input_ids"]
            if len(ids) <= longest:
                yield number, row, len(ids)


def write_rows(path: pathlib.Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
