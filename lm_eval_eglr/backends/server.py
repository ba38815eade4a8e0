"""The model class ``server-eglr``: pools from a server with OpenAI's interface, with all that it returns."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import requests as http
from eglr_selectors import Rollout
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

from lm_eval_eglr.backends.sampled_pools import (
    LOGPROBS,
    Draw,
    SampledPools,
    SamplingOptions,
    cut_after_thinking,
)
from lm_eval_eglr.importing.openai_responses import rollout_of

logger = logging.getLogger(__name__)

CHAT, COMPLETIONS = "/chat/completions", "/completions"
MOST_STOPS = 4  # of OpenAI's interface; vLLM takes any number
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)  # answers after which a request may succeed


class ChatText(str):
    """The messages of a chat as JSON: its template is the server's affair."""


class ServerPools(SampledPools, LocalCompletionsAPI):  # type: ignore[misc]
    """Pools of plain samples from ``/v1/chat/completions`` or ``/v1/completions``, one request per rollout.

    vLLM returns token ids, too; then pages show tokens and costs count them. With ``/v1/completions`` and a
    tokenizer, loglikelihood tasks run as with ``local-completions``.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        temperatures: Any = None,
        rollouts: str | None = None,
        seed: int | None = 0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        trace: bool = True,
        logprobs: int = LOGPROBS,
        num_concurrent: int = 64,
        tokenizer_backend: str | None = None,
        think_end_token: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Asks the server which models it has.

        Args:
            base_url: Whole address, such as ``http://localhost:8000/v1/chat/completions``.
            model: The model's name there; the server's only one if not given.
            temperatures: Temperatures of a pool, such as ``0:0.7x15``, which is the default.
            rollouts: Folder of the store that gets every rollout, and from which a stopped run continues.
            seed: Decides the draws, with the prompt and the rollout's cell; ``None`` sends none.
            top_p: Nucleus of the draws.
            top_k: So many likeliest tokens; 0 is all, and sends nothing, since not every server knows it.
            min_p: Tokens of at least this share of the likeliest one's probability; 0 likewise.
            trace: Whether the log-probability and confidence of every token are kept, not only their means.
            logprobs: Likeliest tokens asked for at every token: confidence needs 20, the mean log-probability
                1; 0 asks for none, for servers that refuse.
            num_concurrent: Requests that are under way at a time.
            tokenizer_backend: As of ``local-completions``; only loglikelihood tasks need one.
            think_end_token: Ends the thinking part of a text; a task that takes one text gets what follows.
            **kwargs: Everything else that ``local-completions`` takes.

        Raises:
            ValueError: For a bad value.
        """
        options = SamplingOptions(temperatures, seed, top_p, top_k, min_p, trace)
        if not base_url.rstrip("/").endswith((CHAT, COMPLETIONS)):
            raise ValueError(
                f"base_url={base_url!r}: expected an address that ends with {CHAT} or {COMPLETIONS}"
            )
        if isinstance(logprobs, bool) or not isinstance(logprobs, int) or not 0 <= logprobs <= LOGPROBS:
            raise ValueError(f"logprobs={logprobs!r}: expected an integer from 0 to {LOGPROBS}")
        if not isinstance(num_concurrent, int) or num_concurrent < 1:
            raise ValueError(f"num_concurrent={num_concurrent!r}: expected an integer >= 1")
        base_url = base_url.rstrip("/")
        self._chat = base_url.endswith(CHAT)
        super().__init__(
            base_url=base_url,
            model=model or "unknown",
            tokenizer_backend=tokenizer_backend,
            num_concurrent=num_concurrent,
            **kwargs,
        )
        self.think_end_token = think_end_token
        self._logprobs = logprobs
        self._local = threading.local()
        served = self._served_models()
        self._is_vllm = any(each.get("owned_by") == "vllm" for each in served)
        if model is None:
            names = [str(each.get("id")) for each in served]
            if len(names) != 1:
                raise ValueError(f"model: the server has {', '.join(names) or 'no list of models'}; name one")
            self.model = names[0]
        self._set_up(options, rollouts, {"model": self.model, "backend": "server", "chat": self._chat})

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages, to which the server applies its template; else the tokenizer's text."""
        if self._chat:
            return ChatText(json.dumps(chat_history, ensure_ascii=False))
        if self.tokenizer is None:
            raise ValueError(
                "apply_chat_template: /v1/completions takes no messages; expected "
                "base_url=.../v1/chat/completions, or tokenizer_backend=huggingface,tokenizer=NAME"
            )
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def loglikelihood(self, requests: list[Instance], **kwargs: Any) -> Any:
        """As ``local-completions``; a chat has no log-probabilities of given texts."""
        if self._chat:
            raise ValueError(f"base_url={self.base_url!r}: loglikelihood tasks need /v1/completions")
        return super().loglikelihood(requests, **kwargs)

    def _draw(
        self, draws: Sequence[Draw], requests: Sequence[Instance], disable_tqdm: bool
    ) -> Iterator[tuple[Draw, Rollout]]:
        with ThreadPoolExecutor(self._concurrent) as pool:
            waiting = {pool.submit(self._ask, draw, requests[draw.request]): draw for draw in draws}
            try:
                done = as_completed(waiting)
                for future in tqdm(done, total=len(draws), disable=disable_tqdm, desc="Rollouts"):
                    yield waiting[future], future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, draw: Draw, request: Instance) -> Rollout:
        payload, until = self._payload(draw, request)
        response = self._post(payload)
        choices = response.get("choices")
        if not isinstance(choices, list) or not choices:
            raise ValueError(f"{self.base_url}: a response without choices")
        rollout = rollout_of(choices[0], draw.cell, self.base_url, self._options.trace)
        return cut_after_thinking(rollout, until, self.think_end_token)

    def _payload(self, draw: Draw, request: Instance) -> tuple[dict[str, Any], list[str]]:
        context, gen_kwargs = request.args
        options = dict(normalize_gen_kwargs(gen_kwargs, self._max_gen_toks))
        until = [each for each in options.pop("until", []) if each]
        for name in ("do_sample", "temperature"):
            options.pop(name, None)
        payload: dict[str, Any] = {
            "model": self.model,
            "max_tokens": options.pop("max_gen_toks"),
            "temperature": draw.cell.temperature,
            "top_p": self._options.top_p,
            "seed": draw.seed,
        }
        if until and not self.think_end_token:
            payload["stop"] = until if self._is_vllm else until[:MOST_STOPS]
        for name in ("top_k", "min_p"):
            if getattr(self._options, name):
                payload[name] = getattr(self._options, name)
        if self._chat:
            messages = json.loads(context) if isinstance(context, ChatText) else None
            payload["messages"] = messages or [{"role": "user", "content": str(context)}]
            if self._logprobs:
                payload |= {"logprobs": True, "top_logprobs": self._logprobs}
        else:
            payload["prompt"] = str(context)
            if self._logprobs:
                payload["logprobs"] = self._logprobs
        if self._is_vllm:
            payload["return_token_ids"] = True
        # `--gen_kwargs seed=None` and the like take an entry out.
        return {key: value for key, value in {**payload, **options}.items() if value is not None}, until

    def _post(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """One response; tried again after what may pass, with longer and longer breaks.

        Raises:
            ValueError: If the server refuses the request, or does not answer it in ``max_retries`` tries.
        """
        reason = ""
        for attempt in range(max(1, self.max_retries)):
            if attempt:
                time.sleep(min(2.0**attempt, 30.0) / 2)
            try:
                response = self._session().post(
                    self.base_url, json=payload, headers=self.header, timeout=self.timeout
                )
            except (http.ConnectionError, http.Timeout) as error:
                reason = type(error).__name__
                continue
            if response.ok:
                content: dict[str, Any] = response.json()
                return content
            reason = f"{response.status_code} {' '.join(response.text.split())[:400]}"
            if response.status_code not in AGAIN:
                break
        raise ValueError(f"{self.base_url}: {reason}; what was decoded before is kept in rollouts=DIR")

    def _session(self) -> http.Session:
        """A session of the thread's own: requests' are not made for several threads."""
        if not hasattr(self._local, "session"):
            self._local.session = http.Session()
            self._local.session.verify = self.verify_certificate and (self.ca_cert_path or True)
        session: http.Session = self._local.session
        return session

    def _served_models(self) -> list[dict[str, Any]]:
        """The server's list of models; empty if it has none."""
        root = self.base_url.removesuffix(CHAT if self._chat else COMPLETIONS)
        try:
            response = self._session().get(f"{root}/models", headers=self.header, timeout=10)
            found = response.json().get("data") if response.ok else None
        except (http.RequestException, ValueError, AttributeError):
            found = None
        return [each for each in found or [] if isinstance(each, dict)]

    @property
    def api_key(self) -> str:
        """From the environment, as of ``local-completions``."""
        return os.environ.get("OPENAI_API_KEY", "")
