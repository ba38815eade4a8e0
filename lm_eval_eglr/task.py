"""The task class: asks for pools, runs one filter pipeline per selector, scores what each selected."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eglr_selectors import ParsedPool, Rules, available_selectors, get_selector, split_specifications
from eglr_selectors.factories import REQUIRED
from lm_eval.api.filter import FilterEnsemble
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from lm_eval_eglr.dataset import Source, load_problems
from lm_eval_eglr.filters import PoolReader, SelectedText, SelectFilter, WholePool
from lm_eval_eglr.response import PoolRequest

POOL_METRICS = ("truncated", "no_answer", "ungraded", "cost_vs_plain")
METRICS = [
    {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
    *({"metric": name, "aggregation": "mean", "higher_is_better": False} for name in POOL_METRICS),
]


class EGLRTask(ConfigurableTask):
    """A benchmark whose answers are selected from pools.

    Its YAML file names this class and gives the data's :class:`Source` as ``dataset_kwargs``. Under
    ``metadata`` stand ``rules`` (grading rules) and ``fallbacks`` (where to look for an answer when there
    is no box); ``--metadata`` adds ``selectors`` (names, by default all), ``data_dir`` and ``repeats``.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        options = dict(config)
        options.pop("class", None)
        metadata = dict(options.get("metadata") or {})
        options["repeats"] = _repeats(metadata.get("repeats", options.get("repeats", 1)))
        options["metric_list"] = METRICS
        options["process_results"] = score
        self._reader = PoolReader(
            "answer",
            Rules.named(metadata.get("rules", "math")),
            tuple(metadata.get("fallbacks", ())),
        )
        names = chosen_selectors(metadata.get("selectors"))
        super().__init__(config=options, **kwargs)
        self._filters = [self._pipeline(name) for name in names]
        self._filters.append(FilterEnsemble("pool", [functools.partial(WholePool, self._reader)]))

    def _pipeline(self, name: str) -> FilterEnsemble:
        selector = get_selector(name)
        label = f"{name} (uses reference)" if selector.uses_reference else name
        return FilterEnsemble(label, [functools.partial(SelectFilter, name, self._reader)])

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Loads the problems; see :func:`lm_eval_eglr.dataset.load_problems`."""
        metadata = self.config.metadata or {}
        problems = load_problems(
            Source(**(dataset_kwargs or {})),
            Path(metadata["config_source"]).parent,
            metadata.get("data_dir"),
        )
        self.dataset = {self.config.test_split: problems}

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **kwargs: Any) -> Instance:
        """Marks the request as one for a pool."""
        plain = super().construct_requests(doc, ctx, **kwargs)
        return PoolRequest(
            plain.request_type,
            plain.doc,
            plain.arguments,
            plain.idx,
            plain.metadata,
            reference=doc["answer"],
            rules=self._reader.rules,
            fallbacks=self._reader.fallbacks,
        )

    def apply_filters(self) -> list[Instance] | None:
        """Drops what lm_eval repeated to even out the processes, then runs the pipelines."""
        for instance in self._instances or ():
            del instance.resps[instance.repeats :]
        filtered: list[Instance] | None = super().apply_filters()
        return filtered

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
        """Scores what one pipeline made of one document."""
        return score(doc, results)


def chosen_selectors(value: Any) -> list[str]:
    """The selectors that ``--metadata selectors=...`` names, as ``majority,oracle`` or a list; else all.

    Raises:
        ValueError: If one is unknown or its options are wrong.
    """
    if value is None:
        return [
            name
            for name, info in available_selectors().items()
            if not any(default is REQUIRED for default in info.options.values())
        ]
    text = value.strip().removeprefix("[").removesuffix("]") if isinstance(value, str) else value
    names = split_specifications(text)
    if not names:
        raise ValueError(f"selectors={value!r}: expected at least one name")
    for name in names:
        get_selector(name)
    return names


def _repeats(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"repeats={value!r}: expected an integer >= 1")
    return value


def score(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Metrics of one document: of a selection its correctness, of the whole pool its shares and cost."""
    (result,) = results
    if isinstance(result, SelectedText):
        return {"exact_match": _correctness(result)}
    return pool_metrics(result.parsed)


def _correctness(selected: SelectedText) -> float:
    """1 or 0; NaN where the selector is not defined on this pool. Ungraded counts 0 and is shown apart."""
    selection = selected.selection
    if not selection.defined:
        return math.nan
    return float(selection.index is not None and selected.parsed.correct[selection.index] is True)


def pool_metrics(parsed: ParsedPool) -> dict[str, float]:
    """Shares over all rollouts of a pool, and what it cost over plain sampling of the same tokens."""
    count = len(parsed)
    metrics = {
        "truncated": sum(rollout.truncated for rollout in parsed) / count,
        "no_answer": (count - len(parsed.answered)) / count,
        "ungraded": sum(parsed.correct[i] is None for i in parsed.answered) / count,
    }
    cost = parsed.pool.cost
    if cost is not None and cost.plain_flops:
        metrics["cost_vs_plain"] = cost.flops / cost.plain_flops
    return metrics
