"""``eglr export``: rollouts for trainers and other tools."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from lm_eval_eglr.cli.output import check_writable, log
from lm_eval_eglr.cli.sources import open_store
from lm_eval_eglr.store import Store
from lm_eval_eglr.store.jsonl import to_records
from lm_eval_eglr.store.training import count_without_draws, training_rows

Form = Literal["trl", "jsonl", "parquet"]


def export(
    folder: Annotated[Path, typer.Argument(metavar="STORE", help="Folder given as rollouts=DIR.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="trl: JSON lines of prompts, completions, token ids, log-probabilities, rewards and "
            "group-relative advantages; parquet: the same as one table, with answer and correct; jsonl: "
            "every rollout with all that the store knows.",
        ),
    ] = "trl",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file. [default: beside the store]")
    ] = None,
) -> None:
    """Export rollouts, for GRPO and the like, or whole for another tool.

    Rollouts without a reward (no reference, or an answer that could not be graded) are left out of trl
    and parquet. Exits with 0, with 1 when the store is damaged, with 2 when an option is wrong.
    """
    if form not in get_args(Form):
        raise ValueError(f"format={form!r}: expected one of {', '.join(get_args(Form))}")
    suffix = {"trl": ".trl.jsonl", "jsonl": ".jsonl", "parquet": ".parquet"}[form]
    whole = folder.resolve()
    path = output or whole.with_name(whole.name + suffix)
    store = open_store(folder)
    check_writable(path)
    count = write_export(store, form, path)
    left_out = sum(len(stored.pool) for stored in store.pools) - count
    note = f"; {left_out} have no reward (no reference, or not graded) and were left out" if left_out else ""
    if form != "jsonl" and (old := count_without_draws(store)):
        note += f"; {old} were recorded before the log-probabilities of the draw were, and have none"
    log(f"wrote {count} rollouts to {path}{note}")


def write_export(store: Store, form: str, path: Path) -> int:
    """Writes a store in one of the formats; returns the number of rollouts."""
    if form == "jsonl":
        return _write_lines(path, to_records(store.pools))
    rows = training_rows(store)
    if form == "trl":
        return _write_lines(path, (row.to_record() for row in rows))
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = {
        "prompt": pa.string(),
        "completion": pa.string(),
        "prompt_id": pa.string(),
        "completion_ids": pa.list_(pa.int64()),
        "logprobs": pa.list_(pa.float64()),
        "reward": pa.float64(),
        "advantage": pa.float64(),
        "truncated": pa.bool_(),
        "axis": pa.string(),
        "span": pa.int64(),
        "temperature": pa.float64(),
        "answer": pa.string(),
        "correct": pa.bool_(),
    }
    records = [{**row.to_record(), "answer": row.answer, "correct": row.reward == 1} for row in rows]
    table = pa.Table.from_pylist(records, schema=pa.schema(list(fields.items())))
    pq.write_table(table, path, compression="zstd")
    return int(table.num_rows)


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
            count += 1
    return count
