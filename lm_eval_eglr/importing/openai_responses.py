"""Answers of OpenAI-style servers: completions, chats or ``/v1/responses``; bare, with requests, of a batch.

The same reading serves ``--model server-eglr``, whose responses come from the wire instead of a file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eglr_selectors import Cell, FinishReason, Rollout

from lm_eval_eglr.importing.imported import (
    ImportOptions,
    Pools,
    Source,
    imported_pool,
    json_fields,
    reference_of,
    temperature_of,
)
from lm_eval_eglr.importing.json_lines import Records, first_record, read_lines
from lm_eval_eglr.importing.logprobs import telemetry_of
from lm_eval_eglr.importing.responses_api import as_chat, is_response, messages_in
from lm_eval_eglr.store import StoredPool

FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "error",
    "error": "error",
    "abort": "error",
}
SETTINGS = ("temperature", "top_p", "max_tokens", "max_output_tokens", "seed")
RECORD_KEYS = ("request", "response", "prompt", "messages", "reference", "task", "choices", "error")


def recognises(path: Path) -> bool:
    """Whether the first record is a response, has one, or is a line of a batch's output."""
    if not path.is_file():
        return False
    record = first_record(path)
    return (
        is_response(record)
        or isinstance(record.get("choices"), list)
        or (isinstance(record.get("response"), dict) and ("request" in record or "custom_id" in record))
    )


def read(path: Path, options: ImportOptions) -> Source:
    """Reads responses; those of one prompt become one pool, in their order.

    A record is a response; or ``{"request": ..., "response": ..., "reference": ...}``; or a line of a batch's
    output, whose requests are the file ``options.requests``.

    Raises:
        ValueError: If a record is no such thing, or rollouts of several models are mixed.
    """
    requests = {} if options.requests is None else _requests(Path(options.requests))
    records = Records(path)
    groups: dict[bytes, list[int]] = {}  # the prompts' digests, and which records are of each
    models: dict[str, None] = {}
    prompted = False
    failed = 0
    for number, where, record in records:
        response = _response(record, where)
        if response is None:
            failed += 1
            continue
        request = _request(record, requests, where)
        if response.get("model"):
            models[str(response["model"])] = None
        prompt = prompt_of({**record, **request})
        prompted = prompted or bool(prompt)
        if not prompt and options.requests is None and "custom_id" not in record:
            # Without prompts nothing says which responses belong together but the responses themselves.
            prompt_key = where
        else:
            prompt_key = prompt or str(record.get("custom_id"))
        digest = hashlib.blake2b(prompt_key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        groups.setdefault(digest, []).append(number)
    if not groups:
        raise ValueError(f"{path}: no response that succeeded")
    if len(models) > 1:
        raise ValueError(f"{path}: rollouts of {', '.join(models)}: expected one model per store")
    notes = []
    if failed:
        notes.append(f"{failed} requests that failed were left out")
    if not prompted:
        notes.append("the responses do not say their prompts; --requests FILE names the requests of a batch")
    pools = Pools(lambda: _pools(path, records, groups.values(), requests))
    return Source(next(iter(models), None), pools, tuple(notes))


def _pools(
    path: Path, records: Records, groups: Iterable[list[int]], requests: Mapping[str, dict[str, Any]]
) -> Iterator[StoredPool]:
    """The records of each group as a pool."""
    for place, numbers in enumerate(groups):
        parts = []
        for where, record in records.again(numbers):
            response = _response(record, where)
            assert response is not None  # else it would be in no group
            parts.append((record, _request(record, requests, where), response))
        yield _pool(path, place, parts)


def _response(record: dict[str, Any], where: str) -> dict[str, Any] | None:
    """The response in a record; ``None`` if its request failed."""
    found = record if is_response(record) else record.get("response", record)
    if isinstance(found, dict) and "body" in found:  # a batch's line
        if found.get("status_code", 200) != 200:
            return None
        found = found["body"]
    if isinstance(found, dict) and is_response(found):
        return as_chat(found)
    if record.get("error") and not (isinstance(found, dict) and found.get("choices")):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("choices"), list) or not found["choices"]:
        raise ValueError(
            f"{where}: not a response of /v1/completions, /v1/chat/completions or /v1/responses: "
            "no choices and no output"
        )
    return found


def _request(record: dict[str, Any], requests: Mapping[str, dict[str, Any]], where: str) -> dict[str, Any]:
    request = record.get("request")
    if isinstance(request, dict):
        body = request.get("body")
        return body if isinstance(body, dict) else request
    if requests:
        custom_id = str(record.get("custom_id"))
        if custom_id not in requests:
            raise ValueError(f"{where}: custom_id={custom_id!r}: the file of requests has no such one")
        return requests[custom_id]
    return {}


def _requests(path: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for where, record in read_lines(path):
        body = record.get("body")
        if not isinstance(body, dict) or "custom_id" not in record:
            raise ValueError(f"{where}: not a request of a batch, it has no custom_id and body")
        found[str(record["custom_id"])] = {**json_fields(record, ("body", "method", "url")), **body}
    return found


def prompt_of(request: Mapping[str, Any]) -> str:
    """The prompt of a request as text: itself, the only message of a chat, or the chat as JSON."""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    messages = messages_in(request)
    if not messages:
        return ""
    if len(messages) == 1 and isinstance(messages[0], dict) and isinstance(messages[0].get("content"), str):
        return str(messages[0]["content"])
    return json.dumps(messages, ensure_ascii=False)


def _pool(
    path: Path, number: int, parts: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]
) -> StoredPool:
    record, request, _ = parts[0]
    where = f"{path}, problem {number}"
    rollouts: list[Rollout] = []
    for _, asked, response in parts:
        temperature = temperature_of(asked.get("temperature", response.get("temperature")), where)
        choices = sorted(response["choices"], key=lambda choice: choice.get("index", 0))
        rollouts += [
            rollout_of(choice, Cell(0, temperature, len(rollouts) + i), where)
            for i, choice in enumerate(choices)
        ]
    prompt = prompt_of({**record, **request})
    known = json_fields(request, ("messages", "prompt", "stop", "input", "instructions"))
    if not is_response(record):  # else all that it says is of the response
        known |= json_fields(record, RECORD_KEYS)
    fields = {key: known[key] for key in known if key not in ("usage", "system_fingerprint", "logprobs")}
    reference = record.get("reference", request.get("reference"))
    task = record.get("task")
    settings = {key: request[key] for key in SETTINGS if key in request}
    return imported_pool(
        path.stem if task is None else str(task),
        number,
        tuple(rollouts),
        prompt=prompt,
        reference=reference_of(reference),
        fields={"problem": _last_user_text(request) or prompt, **fields},
        settings={"request": settings},
    )


def _last_user_text(request: Mapping[str, Any]) -> str:
    for message in reversed(messages_in(request)):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            return content if isinstance(content, str) else ""
    return ""


def rollout_of(choice: Mapping[str, Any], cell: Cell, where: str, keep_tokens: bool = True) -> Rollout:
    """One choice of a response as a rollout, with its log-probabilities and token ids where it has any.

    Args:
        choice: An entry of ``choices``; of vLLM also with ``token_ids``.
        cell: Where it belongs.
        where: Names the response in an error.
        keep_tokens: Whether to keep what is known of single tokens besides their ids.

    Raises:
        ValueError: If it holds no text.
    """
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is None and isinstance(message, dict):
        text = ""  # a reasoning model that ran out of tokens, or a refusal
    if isinstance(text, list):  # content in parts
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
    if not isinstance(text, str):
        raise ValueError(f"{where}: a choice without text")
    logprobs, top = _logprobs(choice.get("logprobs"))
    tokens = choice.get("token_ids") or ()
    return Rollout(
        text,
        cell,
        FINISH_REASONS.get(str(choice.get("finish_reason")), "unknown"),
        tuple(int(token) for token in tokens),
        telemetry_of(logprobs, top, keep_tokens),
    )


def _logprobs(found: Any) -> tuple[list[float], list[list[float]]]:
    """Log-probabilities of the tokens, and of the likeliest ones at each, in either style of interface."""
    if not isinstance(found, dict):
        return [], []
    if isinstance(found.get("content"), list):  # chat
        entries = found["content"]
        likeliest = [[each.get("logprob") for each in entry.get("top_logprobs") or []] for entry in entries]
        drawn = [entry.get("logprob") for entry in entries]
    else:
        likeliest = [list((each or {}).values()) for each in found.get("top_logprobs") or []]
        drawn = found.get("token_logprobs") or []
    return [_number(value) for value in drawn], [[_number(value) for value in each] for each in likeliest]


def _number(value: Any) -> float:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known else math.nan
