"""What the engine asks of a recurrent-depth model, and which models answer.

A recurrent-depth model embeds its tokens (prelude), applies one block again and again to a latent state, with
what was embedded added each time, and predicts from the last state (coda). Source: "Scaling up Test-Time
Compute with Latent Reasoning", arXiv 2502.05171.

To teach the engine another model, derive a class from :class:`RecurrentModel`, register it with
:func:`recurrent_model`, and import it before the model is decoded; docs/tutorials/recurrent_depth.md has an
example. Everything but attention works token by token, so tokens of all rows lie flat, one after the other,
each with a position of its own. Attention is answered by the engine: give ``cache`` to the layers as their
cache, whose ``update`` they call once per layer, and let them call the attention interface of transformers or
``torch.nn.functional.scaled_dot_product_attention``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache, PreTrainedModel


class RecurrentModel(ABC):
    """A model as prelude, recurrent block and coda; tensors are of tokens that lie flat.

    Attributes:
        model: The model.
        recurrences: Iterations r of its own, that it makes where nobody says otherwise.
        outer_layers: Layers of prelude and coda, which run once per token.
        core_layers: Layers of one iteration.
        predict_layers: Layers of the coda, which an exit rule that reads distributions runs once more for
            each iteration.
        positions: Positions that it has; ``None`` if it does not say.
        reads_prompts_whole: Whether tokens of a prompt attend to each other in both directions, so that a
            prompt must be read in one piece.
    """

    name: ClassVar[str] = ""

    recurrences: int
    outer_layers: int
    core_layers: int
    predict_layers: int = 0
    positions: int | None = None
    reads_prompts_whole: bool = False

    def __init__(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Reads the sizes of ``model``; ``seed`` is that of its first states, if these are random.

        Raises:
            UnsupportedModelError: If it has something that the engine cannot do; the message says what.
        """
        self.model = model

    @classmethod
    @abstractmethod
    def recognises(cls, model: PreTrainedModel) -> bool:
        """Whether this class speaks for a model; by what the model has."""

    @abstractmethod
    def embed(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """The prelude: ``[tokens]`` and their positions to what is injected, ``[tokens, dim]``."""

    @abstractmethod
    def begin(self, embedded: Tensor, positions: Tensor) -> Tensor:
        """The latent states before the first iteration, ``[tokens, state]``.

        A function of the position (and of ``embedded``) alone: nothing that is decoded may depend on how
        often a global generator was asked.
        """

    @abstractmethod
    def iterate(self, embedded: Tensor, states: Tensor, positions: Tensor, step: int, cache: Cache) -> Tensor:
        """One iteration, the ``step``-th from 0: the next states, ``[tokens, state]``."""

    @abstractmethod
    def predict(self, states: Tensor, positions: Tensor, wanted: Tensor, cache: Cache) -> Tensor:
        """The coda over all tokens, and the head on those that are ``wanted``: ``[wanted, vocab]``."""

    @abstractmethod
    def own_logits(self, tokens: Tensor, recurrences: int, states: Tensor) -> Tensor:
        """Logits by the model's own forward on one sequence, to check the engine, ``[tokens, vocab]``.

        Args:
            tokens: Token ids, ``[tokens]``.
            recurrences: Iterations to make.
            states: What :meth:`begin` gave for them.
        """

    @abstractmethod
    def layer_parameters(self) -> float:
        """Parameters of the block divided by its layers, those that inject the embedding included."""

    def head_parameters(self) -> int:
        """Number of parameters of the unembedding."""
        count: int = self.model.get_output_embeddings().weight.numel()
        return count


RECURRENT_MODELS: dict[str, type[RecurrentModel]] = {}
Kind = TypeVar("Kind", bound=type[RecurrentModel])


def recurrent_model(name: str) -> Callable[[Kind], Kind]:
    """Registers an adapter; the one that was registered last is asked first whether it knows a model."""

    def register(kind: Kind) -> Kind:
        kind.name = name
        RECURRENT_MODELS[name] = kind
        return kind

    return register


def find_recurrent(model: PreTrainedModel) -> type[RecurrentModel] | None:
    """The adapter that recognises a model; ``None`` if none does."""
    kinds = list(RECURRENT_MODELS.values())
    return next((kind for kind in reversed(kinds) if kind.recognises(model)), None)


def count_parameters(module: nn.Module) -> int:
    """Number of parameters of a module that work on a token: norms and biases, too; no embedding tables."""
    return sum(parameter.numel() for parameter in module.parameters())


def on_wanted(head: nn.Module, wanted: Tensor) -> RemovableHandle:
    """Lets a head see the wanted tokens only, until the handle is removed: their logits are what is large."""
    return head.register_forward_pre_hook(lambda module, args: (args[0][:, wanted], *args[1:]))
