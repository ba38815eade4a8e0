"""Loading models that say something at every token: classes, a value, or the vocabulary."""

from __future__ import annotations

import json
from typing import Any


def load_process_model(model: str, head: str, *, dtype: str, trust_remote_code: bool) -> Any:
    """Loads a model whose first output is ``[batch, length, outputs]``.

    Args:
        model: A model of the hub or a folder.
        head: ``language`` for a causal LM, ``tokens`` for a token classifier (or a model that brings
            its own code), ``value`` for a causal LM with a ``v_head`` beside it.
        dtype: As transformers takes it.
        trust_remote_code: Whether the model's own code may run.

    Raises:
        ValueError: If a value head is wanted and the checkpoint has none.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForTokenClassification

    options = {"dtype": dtype, "trust_remote_code": trust_remote_code}
    if head == "language":
        return AutoModelForCausalLM.from_pretrained(model, **options)
    if head == "value":
        return _with_value_head(AutoModel.from_pretrained(model, **options), model)
    architectures = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code).architectures or []
    classifier = any(name.endswith("ForTokenClassification") for name in architectures)
    auto = AutoModelForTokenClassification if classifier else AutoModel
    return auto.from_pretrained(model, **options)


def _with_value_head(backbone: Any, model: str) -> Any:
    """Puts the checkpoint's ``v_head.summary`` on its backbone, as trl's value-head models store it."""
    import torch

    weights = _value_head_weights(model)
    summary = torch.nn.Linear(backbone.config.hidden_size, 1, dtype=backbone.dtype)
    with torch.no_grad():
        summary.weight.copy_(weights["v_head.summary.weight"].view_as(summary.weight))
        summary.bias.copy_(weights["v_head.summary.bias"].view_as(summary.bias))

    class WithValueHead(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.v_head, self.config = backbone, summary, backbone.config

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor]:
            hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask)[0]
            return (self.v_head(hidden),)

    return WithValueHead()


def _value_head_weights(model: str) -> dict[str, Any]:
    from safetensors import safe_open
    from transformers.utils import cached_file

    wanted = ("v_head.summary.weight", "v_head.summary.bias")
    index = cached_file(model, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    if index is None:
        shards = dict.fromkeys(wanted, "model.safetensors")
    else:
        with open(index, encoding="utf-8") as file:
            shards = json.load(file)["weight_map"]
    found = {}
    for name in wanted:
        path = cached_file(model, shards[name]) if name in shards else None
        if path is None:
            raise ValueError(f"{model}: no {name} in its checkpoint, which this convention needs")
        with safe_open(path, framework="pt") as tensors:
            if name not in tensors.keys():  # noqa: SIM118 - not a mapping
                raise ValueError(f"{model}: no {name} in its checkpoint, which this convention needs")
            found[name] = tensors.get_tensor(name)
    return found
