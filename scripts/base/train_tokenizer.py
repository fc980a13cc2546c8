"""Trains the base model's tokenizer: byte-level BPE with 2,048 entries (development only).

    python scripts/base/train_tokenizer.py --corpus ../shared/corpus --out assets/base

Deterministic: the same corpus and the same version of `tokenizers` give the same bytes. The sample is every
story plus one book passage in four, so that merges are spent on story English and not on old book names.

Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json.
"""

import argparse
import gzip
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
END_OF_TEXT = "<|endoftext|>"
CONTROL = [END_OF_TEXT, "<|im_start|>", "<|im_end|>"]

# Contractions; words with their leading space; single digits; punctuation; line breaks as one piece, so that a
# paragraph end is one token; other white space.
PIECES = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


def rows(path: Path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def sample(corpus: Path):
    for row in rows(corpus / "tinystories.jsonl.gz"):
        if "(truecased)" not in row["source"]:
            yield row["text"]
    for index, row in enumerate(rows(corpus / "childrens-books.jsonl.gz")):
        if index % 4 == 0:
            yield row["text"]


def write(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"))
    parser.add_argument("--out", type=Path, default=Path("assets/base"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL],
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(arguments.corpus), trainer)
    write(arguments.out / "tokenizer.json", json.loads(tokenizer.to_str()))

    write(
        arguments.out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 512,
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "additional_special_tokens": CONTROL[1:],
            "clean_up_tokenization_spaces": False,
        },
    )
    write(
        arguments.out / "special_tokens_map.json",
        {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "additional_special_tokens": CONTROL[1:]},
    )
    print(f"{tokenizer.get_vocab_size()} entries -> {arguments.out / 'tokenizer.json'}")


if __name__ == "__main__":
    main()
