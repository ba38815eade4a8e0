"""Trains the recurrent-depth demo model from scratch on the word problems of the other demo model.

    python examples/recurrent_model/train.py --output /tmp/demo_recurrent

Every option has the value that made the checkpoint in ``lm_eval_eglr/demo_recurrent``.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo_model"))

from train_demo_model import Student, parser, train
from word_tokenizer import CONTEXT

from lm_eval_eglr.recurrent.demo_student import RecurrentStudentConfig, RecurrentStudentForCausalLM

MEAN = 6
"""r̄ of the training, and the model's own number of iterations."""
SPREAD = 0.5
"""σ of the logarithm of the rate."""
MOST = 16
"""Most iterations of a training step; the distribution has no end."""
WITH_GRADIENT = 5
"""Iterations that are backpropagated through, the last ones."""
LOOKS = (1, 2, 4, 8, 16)
"""Iterations that the validation problems are answered with."""


def new_model(tokenizer: PreTrainedTokenizerFast) -> RecurrentStudentForCausalLM:
    """Returns a model of one layer that is iterated, width 192, with random weights.

    Prelude and coda have no layers: with one each, as README.md shows, nothing was left for later iterations
    to do. So all that a token learns of other tokens passes through the state.

    The adapter begins as the state plus half the embedded input, so that the first gradients reach both.
    """
    end = tokenizer.eos_token_id
    config = RecurrentStudentConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=640,
        num_attention_heads=6,
        mean_recurrence=MEAN,
        n_layers_in_prelude=0,
        n_layers_in_recurrent_block=1,
        n_layers_in_coda=0,
        max_position_embeddings=CONTEXT,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = RecurrentStudentForCausalLM(config)
    identity = torch.eye(config.hidden_size)
    with torch.no_grad():
        model.transformer.adapter.weight.copy_(torch.cat([identity, 0.5 * identity], dim=1))
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    return model


def draw_recurrences(rng: random.Random) -> int:
    """Draws r of a training step, as arXiv 2502.05171 does: 1 + Poisson(e^τ), τ ~ N(ln r̄ - σ²/2, σ)."""
    rate = math.exp(rng.gauss(math.log(MEAN) - SPREAD**2 / 2, SPREAD))
    # Knuth's way to draw from a Poisson distribution; rates are small.
    events, left = 0, rng.random()
    while left > math.exp(-rate):
        events, left = events + 1, left * rng.random()
    return min(1 + events, MOST)


def recurrent(tokenizer: PreTrainedTokenizerFast, seed: int) -> Student:
    """Returns the recurrent student, not yet trained."""
    model, rng = new_model(tokenizer), random.Random(seed)

    def logits(ids: torch.Tensor) -> torch.Tensor:
        made = draw_recurrences(rng)
        with_gradient = min(made, WITH_GRADIENT)
        return model(ids, num_steps=(made - with_gradient, with_gradient), use_cache=False).logits

    columns = {f"validation_accuracy_r{r}": {"num_steps": r} for r in LOOKS}
    return Student(model, logits, columns, judged="validation_accuracy_r8")


if __name__ == "__main__":
    command = parser(__doc__.splitlines()[0])
    command.set_defaults(every=200, validation=200, until=0.6)
    options = command.parse_args()
    train(options, lambda tokenizer: recurrent(tokenizer, options.seed))
