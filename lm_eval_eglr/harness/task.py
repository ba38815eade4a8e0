"""The task class: asks for pools, runs one filter pipeline per selector, scores what each selected."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eglr_selectors import (
    Rules,
    Selector,
    default_selectors,
    extract,
    get_selector,
    split_specifications,
)
from eglr_selectors.estimators import FigureAtK, figure_at_k
from lm_eval.api.filter import FilterEnsemble
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from lm_eval_eglr.harness.config_files import YAML_PATH
from lm_eval_eglr.harness.equal_repeats import warn_of_equal_repeats
from lm_eval_eglr.harness.filters import (
    FigureFilter,
    PoolReader,
    SelectFilter,
    WholePool,
    drop_repeated,
    drop_undefined_rows,
    keep_all_texts,
)
from lm_eval_eglr.harness.generation import with_one_length
from lm_eval_eglr.harness.instances import PoolRequest, PoolResponse
from lm_eval_eglr.harness.processes import placeholders
from lm_eval_eglr.harness.row_order import POOL, USES_REFERENCE
from lm_eval_eglr.harness.scores import METRICS, score
from lm_eval_eglr.problems.dataset import load_problems
from lm_eval_eglr.problems.prompts import COMPLETION, STOP, completion_prompt, prompt_hash
from lm_eval_eglr.problems.source import Source

logger = logging.getLogger(__name__)
METADATA_OPTIONS = ("selectors", "repeats", "data_dir", "rules", "fallbacks")
"""What ``--metadata`` may say to our tasks."""


class EGLRTask(ConfigurableTask):
    """A benchmark whose answers are selected from pools.

    Its YAML file names this class and gives the data's :class:`Source` as ``dataset_kwargs``. Under
    ``metadata`` stand ``rules`` (grading rules) and ``fallbacks`` (where to look for an answer when there
    is no box); ``--metadata`` adds ``selectors`` (names, by default all), ``data_dir`` and ``repeats``.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        options = dict(config)
        options.pop("class", None)
        # lm_eval does not say where a task is that was given as a path.
        self._yaml_path = options.pop(YAML_PATH, None)
        metadata = dict(options.get("metadata") or {})
        examples = (options.get("fewshot_config") or {}).get("samples") or []
        metadata["prompt_sha256"] = prompt_hash(str(options.get("doc_to_text")), examples)
        metadata["completion_prompt"] = COMPLETION
        options["metadata"] = metadata
        options["repeats"] = _repeats(metadata.get("repeats", options.get("repeats", 1)))
        options["metric_list"] = METRICS
        options["process_results"] = score
        fallbacks = _names(metadata.get("fallbacks", ()))
        extract("", fallbacks=fallbacks)  # refuses an unknown name now, not after the model has run
        self._reader = PoolReader("answer", Rules.named(metadata.get("rules", "math")), fallbacks)
        if metadata.get("data_dir") == "":
            raise ValueError("data_dir='': expected a folder; is a variable not set?")
        self._several_processes = False
        self._by_default = metadata.get("selectors") is None
        names = chosen_selectors(metadata.get("selectors"))
        super().__init__(config=options, **kwargs)
        self._filters = [self._pipeline(name) for name in names]
        self._filters.append(FilterEnsemble(POOL, [functools.partial(WholePool, self._reader)]))

    def _pipeline(self, name: str) -> FilterEnsemble:
        made = _make(name)
        label = f"{name}{USES_REFERENCE}" if made.uses_reference else name
        if isinstance(made, FigureAtK):
            return FilterEnsemble(label, [functools.partial(FigureFilter, name, self._reader)])
        return FilterEnsemble(
            label,
            [
                functools.partial(
                    SelectFilter, name, self._reader, returns="text", by_default=self._by_default
                )
            ],
        )

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Loads the problems; see :func:`lm_eval_eglr.problems.dataset.load_problems`."""
        metadata = self.config.metadata or {}
        problems = load_problems(
            Source.from_options(dataset_kwargs or {}),
            Path(self._yaml_path or metadata["config_source"]).parent,
            metadata.get("data_dir"),
        )
        self.dataset = {self.config.test_split: problems}

    def fewshot_docs(self) -> list[dict[str, str]]:
        """The task's worked examples; never problems of the benchmark."""
        samples: list[dict[str, str]] = self.fewshot_cfg.samples or []
        return samples

    def build_all_requests(self, **kwargs: Any) -> None:
        """Checks what only a run knows, then builds the requests; without documents a placeholder for them.

        Raises:
            ValueError: If more worked examples are asked for than there are.
        """
        shots, known = self.config.num_fewshot or 0, len(self.sampler.df)
        if shots > known:
            raise ValueError(f"num_fewshot={shots}: {self.task_name} has {known} worked examples")
        if kwargs.get("cache_requests"):
            # Its key knows neither --gen_kwargs nor --metadata, and our requests are built in no time.
            logger.warning("%s: cache_requests is passed over, its requests are built anew", self.task_name)
            kwargs["cache_requests"] = False
        shared = {key: kwargs.get(key) for key in ("limit", "samples")}
        rank, world_size = kwargs.get("rank", 0), kwargs.get("world_size", 1)
        self._several_processes = world_size > 1
        mine = self.doc_iterator(rank=rank, world_size=world_size, **shared)
        if rank == 0 or next(mine, None) is not None:
            super().build_all_requests(**kwargs)
            return
        alone = {"rank": 0, "world_size": 1, "limit": 1, "samples": None, "cache_requests": False}
        super().build_all_requests(**{**kwargs, **alone})
        placeholders(self.instances)

    def fewshot_context(
        self,
        doc: dict[str, Any],
        num_fewshot: int,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        **kwargs: Any,
    ) -> str | list[str]:
        """The prompt: with worked examples and no chat template, in the form that base models complete."""
        if num_fewshot and not apply_chat_template:
            examples = self.sampler.sample(n=num_fewshot)
            return completion_prompt(examples, doc["problem"], system_instruction)
        if system_instruction and not apply_chat_template:
            # lm_eval puts nothing between it and the problem.
            system_instruction = system_instruction.rstrip() + "\n\n"
        prompt: str | list[str] = super().fewshot_context(
            doc,
            num_fewshot=num_fewshot,
            system_instruction=system_instruction,
            apply_chat_template=apply_chat_template,
            **kwargs,
        )
        return prompt

    def construct_requests(
        self, doc: dict[str, Any], ctx: Any, apply_chat_template: bool = False, **kwargs: Any
    ) -> Instance:
        """Marks the request as one for a pool; a completion ends where the next problem would begin."""
        plain = super().construct_requests(doc, ctx, apply_chat_template=apply_chat_template, **kwargs)
        if self.config.num_fewshot and not apply_chat_template:
            options = plain.arguments[1]
            until = options.get("until") or []
            options["until"] = [*([until] if isinstance(until, str) else until), STOP]
        return PoolRequest(
            plain.request_type,
            plain.doc,
            plain.arguments,
            plain.idx,
            plain.metadata,
            reference=doc["answer"],
            rules=self._reader.rules_of(doc),
            fallbacks=self._reader.fallbacks,
        )

    def apply_filters(self) -> list[Instance] | None:
        """Drops what lm_eval repeated to even out the processes, then runs the pipelines.

        Every row is marked whose pools the reference had a say in, whatever its selector looks at. Logged
        samples get the texts of all rollouts, as of a backend that is asked N times.
        """
        drop_repeated(self._instances or ())
        responses = [response for instance in self._instances or () for response in instance.resps]
        pools = [response.pool for response in responses if isinstance(response, PoolResponse)]
        if any(pool is not None and pool.uses_reference for pool in pools):
            for pipeline in self._filters:
                pipeline.name = pipeline.name.removesuffix(USES_REFERENCE) + USES_REFERENCE
        warn_of_equal_repeats(self.task_name, self._instances or ())
        filtered: list[Instance] | None = super().apply_filters()
        if self._by_default:
            drop_undefined_rows(self._instances or (), self._several_processes)
        keep_all_texts(self._instances or (), self._reader)
        return filtered

    def set_config(self, key: str, value: Any, update: bool = False) -> None:
        """As lm_eval, with the length limit of ``--gen_kwargs`` under the one name that is followed."""
        super().set_config(key, with_one_length(value) if key == "generation_kwargs" else value, update)

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """Scores what one pipeline made of one document; with ``--predict_only`` nothing is scored."""
        if "bypass" in self._metric_fn_list:
            return {"bypass": 0.0}
        return score(doc, results)


def chosen_selectors(value: Any) -> list[str]:
    """The rows that ``--metadata selectors=...`` names, as ``majority,pass@4`` or a list; else all selectors.

    Raises:
        ValueError: If one is unknown or its options are wrong.
    """
    if value is None:
        return [name for name in default_selectors() if _can_be_made(name)]
    text = value.strip().removeprefix("[").removesuffix("]") if isinstance(value, str) else value
    names = split_specifications(text)
    if not names:
        raise ValueError(f"selectors={value!r}: expected at least one name")
    for name in names:
        _make(name)
    return names


def _make(name: str) -> Selector | FigureAtK:
    """Makes a selector, or a figure such as ``pass@4``.

    Raises:
        ValueError: If it is unknown, its options are wrong, or its factory raises.
    """
    try:
        return figure_at_k(name) or get_selector(name)
    except ValueError:
        raise
    except Exception as error:  # a selector is anyone's code
        raise ValueError(f"selector {name}: {type(error).__name__}: {error}") from error


def _can_be_made(name: str) -> bool:
    try:
        _make(name)
    except ValueError as error:
        logger.warning("%s has no row: %s", name, error)
        return False
    return True


def _repeats(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"repeats={value!r}: expected an integer >= 1")
    return value


def _names(value: Any) -> tuple[str, ...]:
    """Names given as one string, ``[phrase,hash]`` or ``phrase``, or as a list."""
    if isinstance(value, str):
        value = [name.strip() for name in value.strip().removeprefix("[").removesuffix("]").split(",")]
    return tuple(name for name in value if name)
