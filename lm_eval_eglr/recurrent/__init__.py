"""Recurrent-depth models in the engine: a block that is iterated r times takes the place of the span."""

from lm_eval_eglr.recurrent.models import RecurrentModel, recurrent_model

__all__ = ["RecurrentModel", "recurrent_model"]
