"""Table and compressed files as other programs write them: what test/data/parquet.test.ts reads.

    python scripts/python/make_data_golden.py       # writes test/golden/data

Made with Python 3.11, pyarrow 25.0.1. The rows are written once as JSON (expected.json: what the reader must give, the
padding of structs with null taken out) and as Parquet with every codec, in several row groups. rows.jsonl.zst is the same
JSON, one row per line, with a window and compressed blocks as the zstd library makes them; rows.csv holds them as Python's
csv module writes them.
"""

import csv
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "golden" / "data"

TOOL = pa.struct(
    [
        ("type", pa.string()),
        (
            "function",
            pa.struct(
                [
                    ("name", pa.string()),
                    (
                        "parameters",
                        pa.struct(
                            [
                                ("properties", pa.struct([(key, pa.struct([("type", pa.string())])) for key in ["city", "n"]])),
                                ("required", pa.list_(pa.string())),
                            ]
                        ),
                    ),
                ]
            ),
        ),
    ]
)
CALL = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        (
            "function",
            pa.struct([("name", pa.string()), ("arguments", pa.struct([("city", pa.string()), ("n", pa.int64())]))]),
        ),
    ]
)
MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("tool_calls", pa.list_(CALL)),
        ("name", pa.string()),
        ("weight", pa.float64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("messages", pa.list_(MESSAGE)),
        ("tools", pa.list_(TOOL)),
        ("scores", pa.list_(pa.list_(pa.float32()))),
        ("source", pa.dictionary(pa.int32(), pa.string())),
    ]
)


def tool(name, properties):
    parameters = {"properties": {key: {"type": kind} for key, kind in properties.items()}, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def row(i):
    messages = [{"role": "user", "content": f"Frage {i} é😀 " + "lorem ipsum " * (i % 7)}]
    result = {"id": i, "messages": messages, "source": ["a", "b", "a longer name"][i % 3]}
    if i % 2:
        arguments = {"city": "Köln"} if i % 4 == 1 else {"n": i}
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        messages.append({"role": "assistant", "tool_calls": [call, {"id": "c", **call}]})
        messages.append({"role": "tool", "content": "3", "name": "f"})
        result["tools"] = [tool("f", {"city": "string"}), tool("g", {"n": "integer"})]
    if i % 5 == 0:
        result["scores"] = [[], [0.5, i / 4], [1.0]]
    messages.append({"role": "assistant", "content": f"Antwort {i}", **({"weight": 0.25} if i % 3 == 0 else {})})
    return result


def write_encodings():
    """Types and encodings that the rows above do not have."""
    rows = [
        {
            "text": f"row {i} é😀" * (i % 3 + 1),
            "flag": i % 3 == 0,
            "small": i - 5,
            "big": 10**15 + i,
            "real": i / 8,
            "words": ["a"] * (i % 4),
            "deep": [[f"{i}"], [], ["x", "y"]] if i % 2 else [],
            "map": {"k": i, "l": -i},
            "part": {"a": "p", "b": [i]},
        }
        for i in range(40)
    ]
    for i in range(0, 40, 7):
        rows[i].update(flag=None, small=None, words=None, deep=None, part=None)
    types = {
        "text": pa.large_string(),
        "flag": pa.bool_(),
        "small": pa.int8(),
        "big": pa.uint64(),
        "real": pa.float32(),
        "words": pa.list_(pa.string()),
        "deep": pa.list_(pa.list_(pa.string())),
        "map": pa.map_(pa.string(), pa.int32()),
        "part": pa.struct([("a", pa.string()), ("b", pa.list_(pa.int16()))]),
    }
    columns = {key: [list(row[key].items()) if key == "map" else row[key] for row in rows] for key in types}
    table = pa.table({key: pa.array(columns[key], kind) for key, kind in types.items()})
    flat = table.select(["text", "flag", "small", "big", "real"])
    options = {"store_schema": False, "write_statistics": False, "row_group_size": 16}
    pq.write_table(table, OUT / "types.parquet", compression="snappy", use_dictionary=False, **options)
    delta = {"text": "DELTA_BYTE_ARRAY", "small": "DELTA_BINARY_PACKED", "big": "DELTA_BINARY_PACKED", "flag": "RLE", "real": "BYTE_STREAM_SPLIT"}
    for name, version in [("delta", "1.0"), ("delta-v2", "2.0")]:
        pq.write_table(flat, OUT / f"{name}.parquet", compression="zstd", use_dictionary=False, column_encoding=delta, data_page_version=version, **options)
    pq.write_table(flat, OUT / "dictionary-v2.parquet", compression="gzip", data_page_version="2.0", **options)
    (OUT / "types.json").write_text(json.dumps(rows, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rows = [row(i) for i in range(60)]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    for codec in ["none", "snappy", "gzip", "zstd", "brotli", "lz4"]:
        pq.write_table(
            table,
            OUT / f"{codec}.parquet",
            compression=codec,
            row_group_size=25,
            write_statistics=False,
            store_schema=False,
        )
    (OUT / "expected.json").write_text(json.dumps(rows, ensure_ascii=False, separators=(",", ":")) + "\n")
    with pa.output_stream(str(OUT / "rows.jsonl.zst"), compression="zstd") as stream:
        stream.write("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode())
    write_encodings()
    with open(OUT / "rows.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "messages", "tools", "note"])
        for r in rows:
            tools = json.dumps(r["tools"]) if "tools" in r else ""
            writer.writerow([r["id"], json.dumps(r["messages"], ensure_ascii=False, indent=r["id"] % 2 or None), tools, 'a "b", c'])
    ids = pa.table({"text": ["a", "b"], "id": pa.array([2**53 + 1, 7], pa.int64()), "extra": pa.array([[2**60], [1]], pa.list_(pa.int64()))})
    pq.write_table(ids, OUT / "ids.parquet", compression="none", store_schema=False)
    tokens = pa.table({"input_ids": pa.array([[1, 2, 3], [4]], pa.list_(pa.int32())), "labels": pa.array([[-100, 2, 3], [4]], pa.list_(pa.int64()))})
    pq.write_table(tokens, OUT / "tokens.parquet", compression="none", store_schema=False)


main()
