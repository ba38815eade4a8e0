"""Chooses per-token detail so that the page stays under its size limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

from lm_eval_eglr.reports.pool_chunk import Detail, pool_chunk
from lm_eval_eglr.store import Document

SAMPLE = 12
MARGIN = 1.03
LEFT_OUT = {
    "full": "",
    "coarse": "Entropies of tokens are shown in four steps of colour",
    "recursion": "Entropies of tokens are left out",
    "text": "Tokens are not shown one by one",
}

Progress = Callable[[Sequence[Any], str], Iterable[Any]]


def pack(
    documents: Sequence[Document],
    vocabulary: Sequence[str],
    most: float,
    progress: Progress,
    what: str,
) -> tuple[list[str], str]:
    """Packs the pools of a task with as much detail as fits.

    Args:
        documents: The problems.
        vocabulary: Text of each token id.
        most: Bytes that all chunks may take together. Text is kept even if it takes more.
        progress: Is handed the documents.
        what: Label of the progress bar.

    Returns:
        One chunk per document, and what was left out, empty if nothing was.
    """
    stride = max(1, len(documents) // SAMPLE)
    sample = documents[::stride]
    details: list[Detail] = list(get_args(Detail))
    while True:
        detail = details.pop(0)
        if details:
            expected = sum(len(pool_chunk(each, vocabulary, detail)) for each in sample)
            if MARGIN * expected * len(documents) / len(sample) > most:
                continue
        chunks = [pool_chunk(each, vocabulary, detail) for each in progress(documents, what)]
        if not details or sum(map(len, chunks)) <= most:  # the sample may have been of shorter ones
            return chunks, LEFT_OUT[detail]
