"""``eglr fit-verifier``: a classifier of right and wrong rollouts, from stores."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lm_eval_eglr.cli.output import check_writable, log, print_json
from lm_eval_eglr.cli.select import Json, Stores, TaskOption
from lm_eval_eglr.cli.sources import find_stores, open_store, tasks_of


def fit_verifier(
    stores: Stores,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file that the verifier is saved to.")],
    model: Annotated[str, typer.Option(help="logistic or boosting.")] = "logistic",
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the folds and the classifier.")] = 0,
    task: TaskOption = None,
    json: Json = False,
) -> None:
    """Fit a verifier on stored rollouts and say what it is worth on problems that it has not seen.

    Use it as best_of_n(verifier="learned(path='FILE')"). Exits with 0, with 1 when a store is damaged,
    with 2 when an option is wrong or there is too little to learn from.
    """
    from eglr_selectors.fitting import fit_verifier as fit  # scikit-learn: seconds of imports

    check_writable(output)
    pools = []
    for folder in find_stores(stores):
        store = open_store(folder)
        pools += [each.parsed for name in tasks_of(store, task) for each in store.documents(name)]
    log(f"fitting on {sum(map(len, pools))} rollouts of {len(pools)} problems")
    verifier = fit(pools, model=model, folds=folds, seed=seed)  # type: ignore[arg-type]
    verifier.save(output)
    if json:
        print_json(asdict(verifier.report) | {"path": str(output)})
        return
    print(verifier.report)
    log(f"wrote {output}; use it as best_of_n(verifier=\"learned(path='{output}')\")")
