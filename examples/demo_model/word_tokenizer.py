"""A tokenizer of whole words and single digits; everything else is spelt in bytes, so no text is lost."""

from __future__ import annotations

import itertools
import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from word_problems import problems

PROMPT = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
"""What the task asks; see its ``doc_to_text``."""
PIECES = r" ?\\?[A-Za-z]+|[0-9]|\n+| ?[^A-Za-z0-9\s]|\s"
END, USER, ASSISTANT, SYSTEM = SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT = 1024
SAMPLE = 20_000
"""Problems that the words are collected from; every word is in thousands of them."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Returns the tokenizer: special tokens, 256 bytes, then the words, punctuation and equations' signs."""
    texts = (f"{PROMPT.format(problem=each.problem)} {each.solution}" for each in problems("train", 0))
    words = sorted({piece for text in itertools.islice(texts, SAMPLE) for piece in re.findall(PIECES, text)})
    # A word that begins a solution has no blank before it, and one in a wording may have one.
    words = sorted({*words, *(word.strip(" ") for word in words if word.strip(" "))})
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelt = ["".join(part for part, _ in byte_level.pre_tokenize_str(word)) for word in words]
    entries = dict.fromkeys([*SPECIAL, *alphabet, *spelt])
    # No merges: a piece is one token if it is in the vocabulary, else it falls into its bytes.
    model = models.BPE({entry: number for number, entry in enumerate(entries)}, [], ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), behavior="isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
