"""Tasks that know nothing of pools get from hf-eglr what they get from hf."""

from __future__ import annotations

import json

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from saved_model import save_tiny_model

from lm_eval_eglr.store import read_store
from lm_eval_eglr.store.jsonl import to_records

DOCUMENTS = [
    {"question": "Tom has 3 apples.", "answer": "7", "choices": ["four", "seven"], "gold": 1},
    {"question": "A very much longer question, about pears and plums and many other fruits:", "answer": "5"},
    {"question": "x", "answer": "9"},
]
GENERATION = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {generation}
filter_list:
  - name: strict
    filter: [{{function: regex, regex_pattern: "(.*)"}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: [" four", " seven"]
doc_to_target: 1
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def run(tmp_path, tiny_folder):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"choices": [], "gold": 0, **row}) + "\n" for row in DOCUMENTS))

    def evaluate(model, template, arguments="", folder=tiny_folder, generation="{}", **options):
        (tmp_path / "task.yaml").write_text(
            template.format(name="local_task", file=data, generation=generation)
        )
        return simple_evaluate(
            model=model,
            model_args=f"pretrained={folder}{arguments}",
            tasks=["local_task"],
            task_manager=TaskManager(include_path=str(tmp_path)),
            device="cpu",
            log_samples=True,
            bootstrap_iters=0,
            **options,
        )

    return evaluate


def responses(results):
    return [sample["resps"] for sample in results["samples"]["local_task"]]


@pytest.mark.parametrize(
    "generation",
    [
        "{until: [], max_gen_toks: 24}",
        '{until: ["e", "\\n"], max_gen_toks: 24}',
        '{until: "a", max_gen_toks: 8, do_sample: false, temperature: 0.0}',
    ],
)
def test_greedy_texts_are_those_of_hf(generation, run):
    theirs = run("hf", GENERATION, generation=generation)
    ours = run("hf-eglr", GENERATION, generation=generation, batch_size=3)
    assert responses(ours) == responses(theirs)
    assert ours["results"] == theirs["results"]
    assert all(text for [[text]] in responses(ours))


def test_long_prompts_are_cut_as_hf_cuts_them_and_it_is_said(run, caplog):
    settings, arguments = "{until: [], max_gen_toks: 30}", ",max_length=50"
    ours = run("hf-eglr", GENERATION, arguments, generation=settings)
    assert "2 of 3 prompts were cut on the left to fit a context of 50 tokens" in caplog.text
    assert responses(ours) == responses(run("hf", GENERATION, arguments, generation=settings))


def test_loglikelihoods_are_those_of_hf(run):
    theirs, ours = run("hf", CHOICE), run("hf-eglr", CHOICE, ",spans=0:1")
    assert responses(ours) == responses(theirs)
    assert ours["results"] == theirs["results"]


def test_generation_settings_that_only_transformers_knows_are_left_to_it(run, tmp_path):
    folder = save_tiny_model(tmp_path / "penalised", repetition_penalty=3.0)
    settings = "{until: [], max_gen_toks: 24}"
    theirs = run("hf", GENERATION, folder=folder, generation=settings)
    assert responses(theirs) != responses(run("hf", GENERATION, generation=settings)), "it must matter"
    assert responses(run("hf-eglr", GENERATION, folder=folder, generation=settings)) == responses(theirs)
    beams = "{until: [], max_gen_toks: 12, num_beams: 3}"
    theirs = run("hf", GENERATION, generation=beams)
    assert responses(run("hf-eglr", GENERATION, generation=beams)) == responses(theirs)


def test_sampling_tasks_draw_by_our_seed(run):
    settings = "{until: [], max_gen_toks: 24, do_sample: true, temperature: 1.0}"
    first = responses(run("hf-eglr", GENERATION, generation=settings))
    assert responses(run("hf-eglr", GENERATION, generation=settings, batch_size=3)) == first
    assert responses(run("hf-eglr", GENERATION, ",seed=1", generation=settings)) != first


def test_a_selector_gives_any_task_the_selected_text(run, tmp_path):
    path = tmp_path / "rollouts"
    results = run(
        "hf-eglr",
        GENERATION,
        f",selector=best_of_n,spans=0:1,temperatures=0:1,rollouts={path}",
        generation="{until: [], max_gen_toks: 12}",
    )
    records = list(to_records(read_store(path).pools))
    assert len(records) == 4 * len(DOCUMENTS)
    for number, [[text]] in enumerate(responses(results)):
        pool = [record for record in records if record["doc_id"] == number]
        best = max(pool, key=lambda record: record["telemetry"]["mean_logprob"])
        assert text == best["text"]
