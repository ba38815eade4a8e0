"""A tiny model and its tokenizer as a folder, as lm_eval's command line wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import byte_tokenizer, tiny_model

CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def save_tiny_model(folder: Path, family: str = "llama", **generation: Any) -> str:
    """Saves a model; ``generation`` goes into its generation config."""
    model = tiny_model(family, max_position_embeddings=2048)
    for key, value in generation.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    byte_tokenizer(chat_template=CHAT_TEMPLATE, model_max_length=2048).save_pretrained(folder)
    return str(folder)
