"""Objects of OpenAI's Responses API become pools, as the ``openai`` package's own types write and read them.

The stored file was written from :func:`responses` by the types of openai 3.57.0. No model made its texts and
numbers; its structure is that of the types.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eglr_selectors import Cell

from lm_eval_eglr.importing import ImportOptions, format_of, read_rollouts

WRITTEN = Path(__file__).parent / "files" / "openai_3.57.0_responses.jsonl"
QUESTIONS = {"2+3?": "5", "1+1?": "2"}


def responses() -> list[Any]:
    """Two answers to each of two questions, made of the package's types; one is cut, one is a refusal."""
    types = pytest.importorskip("openai.types.responses")
    from openai.types.responses.response_output_text import Logprob, LogprobTopLogprob

    def part(tokens: list[str]) -> Any:
        likeliest = [LogprobTopLogprob(token=f"t{i}", bytes=[], logprob=-0.1 * (i + 1)) for i in range(20)]
        logprobs = [
            Logprob(token=token, bytes=list(token.encode()), logprob=-0.5 - i, top_logprobs=likeliest)
            for i, token in enumerate(tokens)
        ]
        return types.ResponseOutputText(
            annotations=[], text="".join(tokens), type="output_text", logprobs=logprobs
        )

    def response(number: int, content: list[Any], **options: Any) -> Any:
        thought = types.ResponseReasoningItem(
            id=f"rs_{number}",
            summary=[{"text": "\\boxed{9}", "type": "summary_text"}],  # type: ignore[list-item]
            type="reasoning",
        )
        message = types.ResponseOutputMessage(
            id=f"msg_{number}", content=content, role="assistant", status="completed", type="message"
        )
        known = {"status": "completed", **options}
        return types.Response(
            id=f"resp_{number}",
            created_at=1.0,
            model="served",
            object="response",
            output=[thought, message],
            parallel_tool_calls=True,
            temperature=0.7,
            tool_choice="auto",
            tools=[],
            **known,
        )

    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    refusal = types.ResponseOutputRefusal(refusal="I cannot help with that.", type="refusal")
    return [
        response(0, [part(["It is ", "\\boxed{", "5}"])]),
        response(1, [part(["It is "]), part(["\\boxed{6}"])]),
        response(2, [part(["Well, "])], **cut),
        response(3, [refusal]),
    ]


def lines(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a script of a user keeps: each response with its request."""
    questions = [question for question in QUESTIONS for _ in range(2)]
    return [
        {
            "request": {"model": "served", "input": question, "temperature": 0.7, "max_output_tokens": 64},
            "response": response,
            "reference": QUESTIONS[question],
        }
        for question, response in zip(questions, asked, strict=True)
    ]


def test_the_stored_file_is_what_the_types_write() -> None:
    stored = [json.loads(line) for line in WRITTEN.read_text().splitlines()]
    assert stored == lines([json.loads(response.to_json()) for response in responses()])


def test_the_text_is_what_the_package_takes_for_it() -> None:
    made = responses()
    read = [rollout for stored in read_rollouts([WRITTEN]).pools for rollout in stored.pool]
    assert [rollout.text for rollout in read] == [response.output_text for response in made]


def test_responses_with_their_requests_are_pools_by_prompt() -> None:
    assert format_of(WRITTEN) == "openai"
    imported = read_rollouts([WRITTEN])
    assert imported.model == "served"
    first, second = imported.pools
    assert [(each.pool.prompt, each.key.reference) for each in imported.pools] == list(QUESTIONS.items())
    assert [rollout.text for rollout in first.pool] == ["It is \\boxed{5}", "It is \\boxed{6}"]
    assert [rollout.cell for rollout in first.pool] == [Cell(0, 0.7, 0), Cell(0, 0.7, 1)]
    assert [rollout.finish_reason for rollout in first.pool] == ["stop", "stop"]
    assert [rollout.text for rollout in second.pool] == ["Well, ", ""]
    assert [rollout.finish_reason for rollout in second.pool] == ["length", "stop"]
    telemetry = first.pool[0].telemetry
    assert telemetry is not None
    assert telemetry.token_logprobs == (-0.5, -1.5, -2.5)
    assert telemetry.mean_confidence == pytest.approx(1.05)
    joined = first.pool[1].telemetry
    assert joined is not None
    assert joined.token_logprobs == (-0.5, -0.5)  # of two parts
    assert second.pool[1].telemetry is None
    assert "output" not in first.key.fields
    assert "input" not in first.key.fields


def written(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_batch_of_responses_takes_its_prompts_from_the_file_of_requests(tmp_path: Path) -> None:
    stored = [json.loads(line) for line in WRITTEN.read_text().splitlines()]
    results = [
        {
            "id": f"batch_req_{i}",
            "custom_id": f"q{i}",
            "response": {"status_code": 200, "request_id": f"r{i}", "body": line["response"]},
            "error": None,
        }
        for i, line in enumerate(stored)
    ]
    requests = [
        {"custom_id": f"q{i}", "method": "POST", "url": "/v1/responses", "body": line["request"]}
        for i, line in enumerate(stored)
    ]
    path, asked = written(tmp_path / "out.jsonl", results), written(tmp_path / "in.jsonl", requests)
    pools = read_rollouts([path], options=ImportOptions(requests=asked)).pools
    direct = read_rollouts([WRITTEN]).pools
    assert [each.pool for each in pools[:1]] == [each.pool for each in direct[:1]]
    assert [len(each.pool) for each in pools] == [2, 2]
    assert [len(each.pool) for each in read_rollouts([path]).pools] == [1] * 4  # no prompt says what is alike


def test_bare_responses_are_problems_of_their_own(tmp_path: Path) -> None:
    stored = [json.loads(line)["response"] for line in WRITTEN.read_text().splitlines()]
    imported = read_rollouts([written(tmp_path / "bare.jsonl", stored)])
    assert imported.pools[0].pool[0].text == "It is \\boxed{5}"
    assert [each.pool[0].cell.temperature for each in imported.pools] == [0.7] * 4
    assert any("do not say their prompts" in note for note in imported.notes)


@pytest.mark.parametrize("state", ["failed", "cancelled", "queued", "in_progress"])
def test_a_response_without_its_end_is_left_out(tmp_path: Path, state: str) -> None:
    first, second, *_ = [json.loads(line) for line in WRITTEN.read_text().splitlines()]
    second["response"]["status"] = state
    imported = read_rollouts([written(tmp_path / "some.jsonl", [first, second])])
    assert [len(each.pool) for each in imported.pools] == [1]
    assert imported.notes == ("1 requests that failed were left out",)


def test_instructions_and_parts_of_the_input_belong_to_the_prompt(tmp_path: Path) -> None:
    line = json.loads(WRITTEN.read_text().splitlines()[0])
    parts = [{"type": "input_text", "text": "2+"}, {"type": "input_text", "text": "3?"}]
    line["request"] = {"input": [{"role": "user", "content": parts}]}
    again = {**line, "request": {"input": "2+3?", "instructions": "Be brief."}}
    plain, told = read_rollouts([written(tmp_path / "asked.jsonl", [line, again])]).pools
    assert plain.pool.prompt == "2+3?"
    assert json.loads(told.pool.prompt)[0] == {"role": "system", "content": "Be brief."}
    assert [each.key.fields["problem"] for each in (plain, told)] == ["2+3?", "2+3?"]


def test_responses_may_be_one_json_list_and_those_of_a_prompt_need_not_be_neighbours(tmp_path: Path) -> None:
    stored = [json.loads(line) for line in WRITTEN.read_text().splitlines()]
    mixed = [stored[number] for number in (0, 2, 1, 3)]
    (tmp_path / "list.json").write_text(json.dumps(mixed, indent=1))
    sources = [WRITTEN, written(tmp_path / "mixed.jsonl", mixed), tmp_path / "list.json"]
    texts = [
        [[rollout.text for rollout in each.pool] for each in read_rollouts([source]).pools]
        for source in sources
    ]
    assert texts[0] == texts[1] == texts[2]
