"""Objects of OpenAI's Responses API (``/v1/responses``), in the words of a chat completion.

Source of the format: the types of the ``openai`` package, ``openai.types.responses``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FINISHED = ("completed", "incomplete")
"""States in which a response has its output; of the others one is left out like a request that failed."""
LENGTH = "max_output_tokens"


def is_response(record: Mapping[str, Any]) -> bool:
    """Whether an object is a response of this interface."""
    return record.get("object") == "response" and isinstance(record.get("output"), list)


def as_chat(response: Mapping[str, Any]) -> dict[str, Any] | None:
    """A response as a chat completion of one choice; ``None`` if it failed or has not ended.

    The text is what the package's ``output_text`` gives: all parts of all messages. A refusal is no text, and
    reasoning is no part of an answer. Log-probabilities are kept where every part has them.
    """
    if response.get("error") or response.get("status", "completed") not in FINISHED:
        return None
    parts = list(_texts(response["output"]))
    logprobs = [part.get("logprobs") or [] for part in parts]
    reason = "stop"
    if response.get("status") == "incomplete":
        found = (response.get("incomplete_details") or {}).get("reason")
        reason = "length" if found == LENGTH else str(found)
    choice: dict[str, Any] = {
        "message": {"content": "".join(str(part.get("text") or "") for part in parts)},
        "finish_reason": reason,
    }
    if logprobs and all(logprobs):
        choice["logprobs"] = {"content": [entry for each in logprobs for entry in each]}
    return {
        "model": response.get("model"),
        "temperature": response.get("temperature"),
        "choices": [choice],
    }


def _texts(output: list[Any]) -> Iterator[dict[str, Any]]:
    """The parts of a response's messages that are text."""
    for item in output:
        if isinstance(item, dict) and item.get("type") == "message":
            for part in item.get("content") or []:
                if isinstance(part, dict) and part.get("type") == "output_text":
                    yield part


def messages_in(request: Mapping[str, Any]) -> list[Any]:
    """A request's ``instructions`` and ``input`` as the messages of a chat; those of a chat as they are.

    Items of the input that are no messages, such as calls of tools, stay as they are.
    """
    asked = request.get("input")
    if asked is None or "messages" in request:
        messages = request.get("messages")
        return messages if isinstance(messages, list) else []
    items = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    instructions = request.get("instructions")
    system = [{"role": "system", "content": instructions}] if instructions else []
    return [*system, *map(_message, items)]


def _message(item: Any) -> Any:
    if not isinstance(item, dict) or "role" not in item:
        return item
    content = item.get("content")
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        content = "".join(part["text"] for part in content)
    return {"role": item["role"], "content": content}
