"""What is accepted is what runs: settings that would not be followed are refused, before the model loads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval_command import DEMO, Command

# There is no such model, so a refusal that names anything else came before it was looked for.
NO_MODEL = "--model_args pretrained=no/such-model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--metadata selectors=majorty", "selector 'majorty': expected one of"),
        ("--metadata selectors=majority(x=1)", "x=1: majority takes no options"),
        ("--metadata selectors=", "selectors=[]: expected at least one name"),
        ("--metadata selector=majority", "metadata selector='majority': expected one of"),
        ("--metadata fallback=hash", "did you mean fallbacks?"),
        ("--metadata fallbacks=hashes", "fallbacks: 'hashes'"),
        ("--metadata rules=maths", "rules 'maths': expected one of"),
        ("--metadata repeats=0", "repeats=0: expected an integer >= 1"),
        ("--metadata data_dir=", "data_dir='': expected a folder"),
        ("--gen_kwargs temperature=0", "gen_kwargs temperature=0: a pool has its own; "),
        ("--gen_kwargs temperature=0.7", "(temperatures=...)"),
        ("--gen_kwargs do_sample=True", "gen_kwargs do_sample=True: a pool has its own"),
        ("--gen_kwargs do_sample=False", "gen_kwargs do_sample=False: a pool has its own"),
        (
            "--gen_kwargs top_p=1",
            "gen_kwargs top_p=1: a pool has its own; set it in --model_args (top_p=...)",
        ),
        ("--gen_kwargs top_k=0", "(top_k=...)"),
        ("--gen_kwargs num_beams=2", "generation_kwargs num_beams=2: expected one of do_sample, temperature"),
        ("--gen_kwargs max_gen_toks=0", "gen_kwargs max_gen_toks=0: expected a whole number >= 1"),
        ("--gen_kwargs max_gen_toks=1.5", "gen_kwargs max_gen_toks=1.5: expected a whole number >= 1"),
        ("--gen_kwargs max_gen_toks=True", "gen_kwargs max_gen_toks=True: expected a whole number >= 1"),
        ("--gen_kwargs max_gen_toks=5,max_tokens=6", "gen_kwargs max_tokens=6: max_gen_toks=5 is given too"),
        ("--gen_kwargs until=5", "gen_kwargs until=5: expected a text or a list of texts"),
        ("--use_cache c", "use_cache='c': lm_eval's cache cannot tell pools of other settings apart; keep"),
        ("--batch_size 0", "batch_size='0': expected a whole number >= 1, or auto"),
        ("--batch_size -1", "batch_size='-1'"),
        ("--batch_size autox", "batch_size='autox'"),
        ("--batch_size 2.5", "batch_size='2.5'"),
    ],
)
def test_a_setting_that_would_not_be_followed(arguments: str, message: str, command: Command) -> None:
    done = command(f"{DEMO} {NO_MODEL} {arguments}")
    assert done.code == 1
    assert message in done.error
    assert "no/such-model" not in done.error


@pytest.mark.parametrize(
    "option",
    ["rollouts", "spans", "temperatures", "selector", "strategy", "seed", "peft", "revision", "dtype"],
)
def test_an_empty_value_as_of_a_variable_that_is_not_set(
    option: str, command: Command, tmp_path: Path
) -> None:
    done = command(f"{DEMO} {NO_MODEL},{option}=")
    assert done.error == f"{option}='': expected a value; is a variable not set?"
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_no_number(command: Command) -> None:
    assert command(f"{DEMO} {NO_MODEL},rollouts=12").error.startswith("rollouts=12: expected the name of")


def test_bad_data_is_found_before_the_model_is_looked_for(command: Command, tmp_path: Path) -> None:
    (tmp_path / "math500.jsonl").write_text("{}\n")
    done = command(f"--model hf-eglr --tasks math500_eglr {NO_MODEL} --metadata data_dir={tmp_path}")
    assert done.error.endswith("math500.jsonl, line 1: no 'id'; expected at least id, problem, answer")


def test_groups_and_tags_are_checked_too(command: Command) -> None:
    for tasks in ("eglr_math", "eglr_competition", "demo_eglr,eglr_word_problems"):
        done = command(f"--model hf-eglr {NO_MODEL} --metadata selectors=majorty --tasks {tasks}")
        assert "selector 'majorty'" in done.error


def test_other_models_with_our_tasks_are_checked_too(command: Command) -> None:
    done = command(f"--model hf --tasks demo_eglr {NO_MODEL} --metadata selectors=majorty")
    assert "selector 'majorty'" in done.error


def test_a_length_that_leaves_no_room_for_a_prompt_is_refused_as_hf_does(command: Command) -> None:
    done = command(f"{DEMO} --model_args pretrained=demo,spans=0 --gen_kwargs max_gen_toks=1024")
    assert done.error.startswith("max_gen_toks=1024: the model's context of 1024 tokens would have no room")
    assert "max_gen_toks=512" in done.error


@pytest.mark.parametrize("name", ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_the_length_limit_is_followed_under_each_of_its_names(
    name: str, command: Command, tmp_path: Path
) -> None:
    done = command(
        f"{DEMO} --model_args pretrained=demo,spans=0,temperatures=0 --gen_kwargs {name}=5 "
        "--metadata selectors=greedy --log_samples --output_path out"
    )
    assert done.code == 0, done.err
    (samples,) = tmp_path.rglob("samples_*.jsonl")
    first = json.loads(samples.read_text(encoding="utf-8").splitlines()[0])
    assert first["arguments"]["gen_args_0"]["arg_1"]["max_gen_toks"] == 5
    pools = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    assert all(pool["truncated"] for pool in pools if pool["filter"] == "pool")


def texts_of(tmp_path: Path, folder: str) -> list[list[str]]:
    (samples,) = (tmp_path / folder).rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return [line["resps"][0] for line in lines if line["filter"] == "pool"]


def test_the_seed_of_the_command_is_followed_unless_the_model_has_its_own(
    command: Command, tmp_path: Path
) -> None:
    common = f"{DEMO} --metadata selectors=majority --gen_kwargs max_gen_toks=12 --log_samples"
    runs = {
        "a": ("", "--seed 5"),
        "b": ("", "--seed 6"),
        "c": (",seed=5", ""),
        "d": (",seed=5", "--seed 6"),
        "e": ("", ""),
        "f": ("", "--seed 0"),
    }
    found = {}
    for folder, (own, given) in runs.items():
        arguments = f"--model_args pretrained=demo,spans=0,temperatures=1x4{own} {given}"
        done = command(f"{common} {arguments} --output_path {folder}")
        assert done.code == 0, done.err
        found[folder] = texts_of(tmp_path, folder)
    assert found["a"] == found["c"] == found["d"] != found["b"]
    assert found["e"] == found["f"]
    assert found["e"] not in (found["a"], found["b"])
    (results,) = (tmp_path / "a").rglob("results_*.json")
    assert json.loads(results.read_text())["config"]["model_args"]["seed"] == 5


@pytest.mark.parametrize(
    ("line", "number", "quoted"),
    [
        ("temperatures: 0:0.7", "0.7", '"0:0.7"'),
        ("spans: 2:4", "124", '"2:4"'),
        ("spans: [2:4]", "124", '"2:4"'),
    ],
)
def test_lists_that_yaml_reads_as_numbers_in_base_60(
    line: str, number: str, quoted: str, command: Command, tmp_path: Path
) -> None:
    text = f"model: hf-eglr\ntasks: [demo_eglr]\nmodel_args:\n  pretrained: no/such-model\n  {line}\n"
    (tmp_path / "run.yaml").write_text(text)
    key = line.split(":")[0]
    done = command("--config run.yaml --limit 1")
    assert done.error.startswith(f"run.yaml, line 5: {key}: YAML reads ")
    assert f"as the number {number}; write it in quotes, {key}: {quoted}" in done.error


def test_a_quoted_list_in_a_config_file_runs(command: Command, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        'model: hf-eglr\nmodel_args:\n  pretrained: demo\n  spans: "0:1"\n  temperatures: "0:0.7"\n'
        "  rollouts: runs/a\ntasks: [demo_eglr]\nlimit: 1\nbatch_size: 8\napply_chat_template: true\n"
        'metadata: {selectors: "greedy,majority"}\ngen_kwargs: {max_gen_toks: 6}\n'
    )
    done = command("--config run.yaml --device cpu")
    assert done.code == 0, done.err
    assert [row for row, metric in done.rows if metric == "exact_match"] == ["greedy", "majority"]
    from lm_eval_eglr.store import read_store

    (document,) = read_store(tmp_path / "runs" / "a").pools
    assert len(document.pool) == 4


def test_arguments_that_lm_eval_cannot_read_are_one_line(command: Command) -> None:
    done = command(f"{DEMO} --model_args pretrained=demo,quantization_config={{'a':1}}")
    assert done.error.startswith("Invalid JSON: pretrained=demo,")


def test_predictions_alone_are_warned_of_and_are_all_there(command: Command, tmp_path: Path) -> None:
    arguments = f"{DEMO} --gen_kwargs max_gen_toks=8 --metadata selectors=greedy --predict_only"
    model = "--model_args pretrained=demo,spans=0,temperatures=0:1x2"
    done = command(f"{arguments} {model} --output_path out")
    assert done.code == 0, done.err
    assert "predict_only keeps the texts alone; rollouts=DIR" in done.err
    assert [len(texts) for texts in texts_of(tmp_path, "out")] == [3, 3]
    assert "predict_only keeps" not in command(f"{arguments} {model},rollouts=a --output_path b").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"peft": "an/adapter"}, "peft='an/adapter': needs peft: pip install 'lm-eval-eglr[peft]'"),
        ({"gguf_file": "a.gguf"}, "gguf_file='a.gguf': needs gguf: pip install 'lm-eval-eglr[gguf]'"),
        ({"load_in_4bit": True}, "pretrained='demo' cannot be loaded: "),
        ({"quantization_config": "x"}, "quantization_config='x': expected a mapping, as --config or JSON"),
        ({"quantization_config": {"quant_method": "none_such"}}, "quantization_config={'quant_method': "),
        (
            {"load_in_4bit": True, "quantization_config": {"a": 1}},
            "load_in_4bit: quantization_config is given too",
        ),
    ],
)
def test_what_a_model_needs_and_lacks_is_named(
    arguments: dict[str, Any], message: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("peft", "gguf", "bitsandbytes"):
        monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    error = command(f"{DEMO} --model_args", json.dumps({"pretrained": "demo", **arguments})).error
    assert error.startswith(message)
    if list(arguments) == ["load_in_4bit"]:
        assert "bitsandbytes" in error


def test_requests_are_not_served_from_a_cache_that_knows_no_settings(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    for tokens in (4, 7):
        done = command(
            f"{DEMO} --model_args pretrained=demo,spans=0,temperatures=0 --cache_requests true --log_samples "
            f"--metadata selectors=greedy --gen_kwargs max_gen_toks={tokens} --output_path {tokens}"
        )
        assert done.code == 0, done.err
        assert "cache_requests is passed over" in done.err
    assert texts_of(tmp_path, "4") != texts_of(tmp_path, "7")
