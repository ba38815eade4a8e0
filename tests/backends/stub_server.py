"""A server with OpenAI's interface on this machine, whose texts follow from seed and temperature alone."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKENS = 4


@dataclass
class Stub:
    """What the server was asked, and how it misbehaves.

    Attributes:
        url: Its root, ``http://127.0.0.1:PORT/v1``.
        is_vllm: Whether it says that it is vLLM, and returns token ids.
        ignores_seed: Whether every text is the same.
        refuses: Part of a payload that it answers with 400.
        fails: Answers of status 503 before it works.
        dies_after: Requests after which it answers 400 to all.
        asked: Payloads, in any order.
    """

    url: str = ""
    is_vllm: bool = True
    ignores_seed: bool = False
    refuses: str = ""
    fails: int = 0
    dies_after: int | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def stub_server(**behaviour: Any) -> Iterator[Stub]:
    stub = Stub(**behaviour)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Prints nothing."""

        def _send(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            owner = "vllm" if stub.is_vllm else "someone"
            self._send(200, {"data": [{"id": "tiny", "owned_by": owner}]})

        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                stub.asked.append(payload)
                count, fails = len(stub.asked), stub.fails
                stub.fails = max(0, fails - 1)
            if fails:
                self._send(503, {"error": "busy"})
            elif stub.refuses and stub.refuses in payload:
                self._send(400, {"error": f"unknown field {stub.refuses}"})
            elif stub.dies_after is not None and count > stub.dies_after:
                self._send(400, {"error": "out of credit"})
            else:
                self._send(200, response(payload, stub))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def response(payload: dict[str, Any], stub: Stub) -> dict[str, Any]:
    asked = payload.get("prompt") or payload["messages"]
    seed = None if stub.ignores_seed or not payload["temperature"] else payload.get("seed")
    draw = random.Random(repr((asked, seed)))
    text = f"so it is \\boxed{{{draw.randrange(5)}}} {draw.randrange(10**6)}"
    drawn = [-draw.random() for _ in range(TOKENS)]
    choice: dict[str, Any] = {"index": 0, "finish_reason": draw.choice(["stop", "length"])}
    wanted = payload.get("top_logprobs") or payload.get("logprobs")
    if "messages" in payload:
        choice["message"] = {"role": "assistant", "content": text}
        if wanted:
            top = [{"token": str(i), "logprob": -0.1 * i} for i in range(payload["top_logprobs"])]
            content = [{"token": "t", "logprob": value, "top_logprobs": top} for value in drawn]
            choice["logprobs"] = {"content": content}
    else:
        choice["text"] = text
        if wanted:
            likeliest = {str(i): -0.1 * i for i in range(wanted)}
            choice["logprobs"] = {"token_logprobs": drawn, "top_logprobs": [likeliest] * TOKENS}
    if payload.get("return_token_ids"):
        choice["token_ids"] = [draw.randrange(100) for _ in range(TOKENS)]
    return {"model": payload["model"], "choices": [choice], "usage": {"completion_tokens": TOKENS}}
