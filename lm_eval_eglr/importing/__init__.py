"""Rollouts that other tools made, read as pools: one file per format, and one function that tells them apart.

Nothing here needs the tools themselves, torch or lm_eval: each format is read from what its tool wrote.
"""

from lm_eval_eglr.importing.formats import FORMATS, format_of, open_rollouts, read_rollouts
from lm_eval_eglr.importing.imported import Imported, ImportOptions, Source
from lm_eval_eglr.importing.writing import store_in_memory, write_store

__all__ = [
    "FORMATS",
    "ImportOptions",
    "Imported",
    "Source",
    "format_of",
    "open_rollouts",
    "read_rollouts",
    "store_in_memory",
    "write_store",
]
