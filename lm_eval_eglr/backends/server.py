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
from eglr_selectors.options import check_range
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm.auto import tqdm

from lm_eval_eglr.backends.sampled_pools import (
    LOGPROBS,
    Draw,
    SampledPools,
    SamplingOptions,
    cut_after_thinking,
)
from lm_eval_eglr.decoding.strategies.grid import Items
from lm_eval_eglr.importing.openai_responses import rollout_of

logger = logging.getLogger(__name__)

CHAT, COMPLETIONS = "/chat/completions", "/completions"
MOST_STOPS = 4  # of OpenAI's interface; vLLM takes any number
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)  # answers after which a request may succeed


class ChatText(str):
    """The messages of a chat as JSON: its template is the server's affair."""


class ServerPools(SampledPools, LM):
    """Pools of plain samples from ``/v1/chat/completions`` or ``/v1/completions``, one request per rollout.

    vLLM returns token ids, too; then pages show tokens and costs count them. Loglikelihood tasks are left to
    ``local-completions``.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        temperatures: Items | None = None,
        rollouts: str | None = None,
        seed: int | None = 0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        trace: bool = True,
        logprobs: int = LOGPROBS,
        max_gen_toks: int = 2048,
        num_concurrent: int = 64,
        max_retries: int = 5,
        timeout: float = 1800,
        header: dict[str, str] | None = None,
        verify_certificate: bool | str = True,
        think_end_token: str | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
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
            max_gen_toks: Longest text, tokens, where a task does not say.
            num_concurrent: Requests that are under way at a time.
            max_retries: Tries of a request whose failure may pass.
            timeout: Longest wait for a response, seconds.
            header: Of every request; by default the key in ``OPENAI_API_KEY``.
            verify_certificate: Whether to check the server's certificate, or a file of certificates.
            think_end_token: Ends the thinking part of a text; a task that takes one text gets what follows.
            batch_size: lm_eval hands it to every model; here ``num_concurrent`` takes its place.
            max_batch_size: Likewise.
            device: Likewise.

        Raises:
            ValueError: For a bad value.
        """
        super().__init__()
        options = SamplingOptions(temperatures, seed, top_p, top_k, min_p, trace)
        self._url = base_url.rstrip("/")
        if not self._url.endswith((CHAT, COMPLETIONS)):
            raise ValueError(
                f"base_url={base_url!r}: expected an address that ends with {CHAT} or {COMPLETIONS}"
            )
        check_range("logprobs", logprobs, 0, LOGPROBS, integer=True)
        for name, value in (
            ("max_gen_toks", max_gen_toks),
            ("num_concurrent", num_concurrent),
            ("max_retries", max_retries),
        ):
            check_range(name, value, 1, integer=True)
        check_range("timeout", timeout, 0, open_low=True)
        self._chat = self._url.endswith(CHAT)
        self.think_end_token = think_end_token
        self._logprobs, self._max_gen_toks = logprobs, max_gen_toks
        self._concurrent, self._max_retries, self._timeout = num_concurrent, max_retries, timeout
        key = os.environ.get("OPENAI_API_KEY", "")
        self._header = header or ({"Authorization": f"Bearer {key}"} if key else {})
        self._verify = verify_certificate
        self._local = threading.local()
        served = self._served_models()
        self._is_vllm = any(each.get("owned_by") == "vllm" for each in served)
        if model is None:
            names = [str(each.get("id")) for each in served]
            if len(names) != 1:
                raise ValueError(f"model: the server has {', '.join(names) or 'no list of models'}; name one")
            model = names[0]
        self._model = str(model)
        self._set_up(options, rollouts, {"model": self._model, "backend": "server", "chat": self._chat})

    @property
    def tokenizer_name(self) -> str:
        """What lm_eval names its cache of requests after: the server applies the template."""
        return f"server-eglr {self._model}"

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages, to which the server applies its template.

        Raises:
            ValueError: If the address is that of completions, which take no messages.
        """
        if not self._chat:
            raise ValueError(f"base_url={self._url!r}: expected .../v1{CHAT} for --apply_chat_template")
        return ChatText(json.dumps(chat_history, ensure_ascii=False))

    def loglikelihood(self, requests: list[Instance], **kwargs: Any) -> Any:
        """Refuses: those tasks need no pools."""
        raise ValueError("server-eglr only generates; for loglikelihood tasks take --model local-completions")

    loglikelihood_rolling = loglikelihood

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
            raise ValueError(f"{self._url}: a response without choices")
        rollout = rollout_of(choices[0], draw.cell, self._url, self._options.trace)
        return cut_after_thinking(rollout, until, self.think_end_token)

    def _payload(self, draw: Draw, request: Instance) -> tuple[dict[str, Any], list[str]]:
        context, gen_kwargs = request.args
        options = dict(normalize_gen_kwargs(gen_kwargs, self._max_gen_toks))
        until = [each for each in options.pop("until", []) if each]
        for name in ("do_sample", "temperature"):
            options.pop(name, None)
        payload: dict[str, Any] = {
            "model": self._model,
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
            if not self._chat:
                # Else two tokens of one spelling are one entry among the likeliest.
                payload["return_tokens_as_token_ids"] = True
        # `--gen_kwargs seed=None` and the like take an entry out.
        return {key: value for key, value in {**payload, **options}.items() if value is not None}, until

    def _post(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """One response; tried again after what may pass, with longer and longer breaks.

        Raises:
            ValueError: If the server refuses the request, or does not answer it in ``max_retries`` tries.
        """
        reason = ""
        for attempt in range(self._max_retries):
            if attempt:
                time.sleep(min(2.0**attempt, 30.0) / 2)
            try:
                response = self._session().post(
                    self._url, json=payload, headers=self._header, timeout=self._timeout
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
        raise ValueError(f"{self._url}: {reason}; what was decoded before is kept in rollouts=DIR")

    def _session(self) -> http.Session:
        """A session of the thread's own: requests' are not made for several threads."""
        if not hasattr(self._local, "session"):
            self._local.session = http.Session()
            self._local.session.verify = self._verify
        session: http.Session = self._local.session
        return session

    def _served_models(self) -> list[dict[str, Any]]:
        """The server's list of models; empty if it has none."""
        root = self._url.removesuffix(CHAT if self._chat else COMPLETIONS)
        try:
            response = self._session().get(f"{root}/models", headers=self._header, timeout=10)
            found = response.json().get("data") if response.ok else None
        except (http.RequestException, ValueError, AttributeError):
            found = None
        return [each for each in found or [] if isinstance(each, dict)]
