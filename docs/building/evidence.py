"""Tables of docs/results.md that are made from the stores of the replication.

``python docs/building/evidence.py`` writes them. Between ``<!-- evidence: replication structure -->`` and
``<!-- end -->`` comes what ``eglr axes STORES --table structure --format markdown`` prints for the stores of
that name. They are looked for in ``evidence`` of $EGLR_SHARED_DIR, else of ``shared`` beside or in the
checkout; without them nothing is changed.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from lm_eval_eglr.reports.tables import render
from lm_eval_eglr.store import read_store
from lm_eval_eglr.study.matched import Matched, match_stores
from lm_eval_eglr.study.tables import TABLES
from lm_eval_eglr.study.verdict import verdict

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results.md"
MARK = re.compile(r"<!-- evidence: (\w+) (\w+) -->\n.*?<!-- end -->", re.DOTALL)
STORES = {
    "replication": ("m500_g", "gsm_g", "m500_t", "gsm_t"),
    "half": ("half_gsm_greedy", "half_gsm_fresh"),
}


def evidence_folder() -> Path | None:
    """The folder of the stores; ``None`` if it is not there."""
    named = os.environ.get("EGLR_SHARED_DIR")
    for folder in [Path(named)] if named else [ROOT.parent / "shared", ROOT / "shared"]:
        if all((folder / "evidence" / name).is_dir() for names in STORES.values() for name in names):
            return folder / "evidence"
    return None


def filled(markdown: str, evidence: Path) -> str:
    """The page with every table made anew."""
    studies: dict[str, list[Matched]] = {}

    def made(match: re.Match[str]) -> str:
        stores, table = match[1], match[2]
        if stores not in studies:
            studies[stores] = match_stores([read_store(evidence / name) for name in STORES[stores]])
        if table == "verdict":
            text = "\n".join(f"- {line}" for line in verdict(studies[stores]))
        else:
            text = render(TABLES[table](studies[stores]), "markdown").strip()
        return f"<!-- evidence: {stores} {table} -->\n\n{text}\n\n<!-- end -->"

    return MARK.sub(made, markdown)


if __name__ == "__main__":
    found = evidence_folder()
    if found is None:
        sys.exit("no folder evidence with the stores beside the checkout, nor in $EGLR_SHARED_DIR")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    print(f"filled {PAGE.relative_to(ROOT)}")
