"""The group ``eglr_math``: per selector the mean of benchmarks and the mean of problems."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from our_tasks import task_manager

from lm_eval_eglr.problems.source import Source

SIZES = {"math500": 5, "gsm8k": 4, "aime24": 2, "amc23": 3, "minerva_math": 2, "olympiadbench": 4}


class Parrot(LM):
    """Answers every problem with the number in it, of two draws one wrong."""

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        asked: dict[int, int] = {}
        answers = []
        for request in requests:
            asked[id(request)] = asked.get(id(request), 0) + 1
            number = request.args[0].split()[0]
            answers.append(rf"\boxed{{{number if asked[id(request)] == 1 else 7}}}")
        return answers

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    from lm_eval import simple_evaluate

    def problems(source: Source, *args: Any) -> datasets.Dataset:
        name = source.file.removesuffix(".jsonl")
        # The last problem of each benchmark is one that the parrot gets wrong.
        rows = [
            {
                "id": str(i),
                "problem": f"{i + 10} is what?",
                "answer": "99" if i == SIZES[name] - 1 else str(i + 10),
            }
            for i in range(SIZES[name])
        ]
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr("lm_eval_eglr.harness.task.load_problems", problems)
    return simple_evaluate(
        model=Parrot(),
        tasks=["eglr_math"],
        task_manager=task_manager(repeats=2, selectors="majority,oracle"),
        gen_kwargs="do_sample=True",
    )


def test_both_means_for_every_selector(results: dict[str, Any]) -> None:
    shares = [(size - 1) / size for size in SIZES.values()]
    for row in ("majority", "oracle (uses reference)"):
        key = f"exact_match,{row}"
        assert results["groups"]["eglr_math"][key] == pytest.approx(sum(shares) / 6)
        right, all_ = sum(SIZES.values()) - 6, sum(SIZES.values())
        assert results["groups"]["eglr_math_by_size"][key] == pytest.approx(right / all_)
        assert results["groups"]["eglr_math"][f"exact_match_stderr,{row}"] > 0
    rows = {key.partition(",")[2] for key in results["groups"]["eglr_math"] if key.startswith("exact_match,")}
    assert rows == {"majority", "oracle (uses reference)"}


def test_six_benchmarks_without_names_beyond_them(results: dict[str, Any]) -> None:
    assert results["group_subtasks"] == {
        "eglr_math": ["eglr_math_by_size"],
        "eglr_math_by_size": [f"{name}_eglr" for name in SIZES],
    }


@pytest.mark.parametrize(
    ("tag", "names"),
    [
        ("eglr_competition", {"aime24_eglr", "aime25_eglr", "amc23_eglr", "olympiadbench_eglr"}),
        ("eglr_word_problems", {"gsm8k_eglr", "svamp_eglr"}),
        ("eglr", {f"{name}_eglr" for name in (*SIZES, "aime25", "svamp")}),
    ],
)
def test_tags_name_subsets(tag: str, names: set[str]) -> None:
    assert task_manager().task_index[tag].tags == names
