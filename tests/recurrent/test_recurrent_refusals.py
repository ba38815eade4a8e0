"""What a recurrent-depth model is not: refused by name and reason, before anything is decoded."""

from __future__ import annotations

import pytest
from eglr_selectors import Rollout
from eglr_selectors.pool import Cell
from recurrent_models import tiny_hrm, tiny_student
from tiny_models import tiny_model
from torch import Tensor

from lm_eval_eglr.decoding import PoolDecoder, UnsupportedModelError
from lm_eval_eglr.recurrent import RecurrentModel, recurrent_model
from lm_eval_eglr.recurrent.models import RECURRENT_MODELS

BOTH = r"^recurrences='1:2': expected either these or spans='0:2'; a grid has one axis of depth"
WRONG = [
    ({"recurrences": "0:2"}, r"^recurrences: '0' is no number of iterations; expected an integer >= 1"),
    ({"recurrences": "2:2"}, r"^recurrences='2:2': 2 occurs twice"),
    ({"recurrences": 10**9}, r"^recurrences: '1000000000': expected at most 1024, since a token keeps keys"),
    ({"recurrences": "1:1025"}, r"^recurrences: '1025': expected at most 1024"),
    ({"recurrences": "9" * 5000}, r"^recurrences: '9{39}: expected at most 1024"),
    ({"recurrences": "50%"}, r"^recurrences: '50%' is no number"),
    ({"recurrences": 1.5}, r"^recurrences: '1.5' is no number"),
    ({"spans": "0:2", "recurrences": "1:2"}, BOTH),
    ({"spans": "0:2"}, r"^spans='0:2': .* recurrent-depth model and takes recurrences \(its own is 4\)"),
    ({"entropy_threshold": 0.1}, r"^entropy_threshold: an option of the recursion of top layers"),
    ({"tolerance": 0.1}, r"^tolerance: an option of the recursion of top layers"),
    ({"exit": "cosine"}, r"^exit='cosine': expected one of none, kl, entropy, latent"),
    ({"exit": "kl", "exit_threshold": -1}, r"^exit_threshold=-1"),
    ({"exit_threshold": 0.1}, r"^exit_threshold=0.1: needs a rule"),
    ({"kv_budget": 0}, r"^kv_budget=0"),
    ({"kv_budget": 1.5}, r"^kv_budget=1.5"),
    ({"state_seed": -1}, r"^state_seed=-1"),
    ({"draft_tokens": 2}, r"^draft_tokens=2: needs draft_recurrences"),
    ({"draft_recurrences": 0}, r"^draft_recurrences=0"),
    (
        {"draft_recurrences": 4},
        r"^draft_recurrences=4: expected an integer below the recurrences .* here 4 at most",
    ),
    ({"draft_recurrences": 2, "recurrences": "1:2"}, r"^draft_recurrences=2: .* here 2 at most"),
    (
        {"strategy": "eager", "recurrences": 3, "draft_recurrences": 9},
        r"^draft_recurrences=9: .* here 3 at most",
    ),
    ({"recurrence": 2}, r"^recurrence=2: unknown option; .*, exit, exit_threshold, kv_budget,"),
    ({"draft_recurrences": 2, "exit": "latent"}, r"^draft_recurrences=2: expected exit=none"),
    ({"draft_recurrences": 2, "kv_budget": 2}, r"^draft_recurrences=2: expected no kv_budget"),
    ({"strategy": "sample", "recurrences": "1:2"}, r"^recurrences='1:2': expected one number"),
    ({"strategy": "eager", "recurrences": "1:2"}, r"^recurrences='1:2': expected one number"),
    ({"strategy": "sample", "spans": "0"}, r"^spans='0': an option of strategy=grid"),
]


@pytest.fixture(scope="module")
def student():
    return tiny_student()


@pytest.mark.parametrize(("options", "message"), WRONG, ids=str)
def test_wrong_options_are_refused_in_one_line(options, message, student, tokenizer):
    with pytest.raises(ValueError, match=message) as caught:
        PoolDecoder(student, tokenizer, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"recurrences": "1:2"}, {"exit": "kl", "state_seed": 1}, {"kv_budget": 2}, {"draft_recurrences": 1}],
    ids=str,
)
def test_other_models_have_no_recurrences(options, llama, tokenizer):
    with pytest.raises(ValueError, match=r"option of recurrent-depth models, and LlamaForCausalLM is not"):
        PoolDecoder(llama, tokenizer, **options)


def test_rollouts_of_the_other_axis_cannot_be_rescored(student, llama, tokenizer):
    for model, axis in ((student, "L"), (llama, "R")):
        rollout = Rollout("a", Cell(1, 0.0, axis=axis), "stop", (1, 2))
        with pytest.raises(ValueError, match="of another depth axis than the model"):
            PoolDecoder(model, tokenizer).logprobs("Tom", rollout)


def test_noise_at_test_time_is_refused(tokenizer):
    model = tiny_student()
    model.config.test_time_noise = 0.1
    with pytest.raises(UnsupportedModelError, match=r"test_time_noise=0.1 adds noise"):
        PoolDecoder(model, tokenizer)


@pytest.fixture
def registered():
    """Adapters that a test registers are forgotten after it."""
    before = dict(RECURRENT_MODELS)
    yield recurrent_model
    RECURRENT_MODELS.clear()
    RECURRENT_MODELS.update(before)


class Looped(RecurrentModel):
    """A Llama whose second and third layers are iterated: one recurrence is the model itself."""

    recurrences, outer_layers, core_layers, predict_layers = 1, 2, 2, 1

    @classmethod
    def recognises(cls, model):
        return getattr(model.config, "looped", False)

    def run(self, layers, states, positions, cache):
        states, positions = states[None], positions[None]
        rotation = self.model.model.rotary_emb(states, positions)
        for layer in layers:
            states = layer(states, position_embeddings=rotation, past_key_values=cache)
        return states[0]

    def embed(self, tokens, positions, cache):
        inner = self.model.model
        return self.run(inner.layers[:1], inner.embed_tokens(tokens), positions, cache)

    def begin(self, embedded, positions):
        return embedded

    def iterate(self, embedded, states, positions, step, cache):
        return self.run(self.model.model.layers[1:3], states, positions, cache)

    def predict(self, states, positions, wanted, cache):
        states = self.run(self.model.model.layers[3:], states, positions, cache)
        return self.model.lm_head(self.model.model.norm(states[wanted]))

    def own_logits(self, tokens, recurrences, states):
        return self.model(tokens[None], use_cache=False).logits[0]

    def layer_parameters(self):
        return sum(weights.numel() for weights in self.model.model.layers[1].parameters())


def looped_llama():
    model = tiny_model("llama").double()
    model.config.looped = True
    return model


def test_a_registered_adapter_is_decoded(registered, tokenizer):
    """Its heads share keys; one recurrence is plain decoding, and more are something else."""
    prompts = ["One apple", "Tom"]
    options = {"temperatures": "0:0.8", "noise": "shared"}

    def decode(model, **more):
        pools = PoolDecoder(model, tokenizer, **options, **more).generate(
            prompts, max_new_tokens=12, progress=False
        )
        return [[rollout.tokens for rollout in pool] for pool in pools]

    plain = decode(tiny_model("llama").double(), spans="0")
    registered("looped")(Looped)
    one, two = (decode(looped_llama(), recurrences=number) for number in (1, 2))
    assert [pool[0] for pool in one] == [pool[0] for pool in plain]
    assert one != two
    assert decode(looped_llama(), recurrences=2, kv_budget=1) != two


def test_an_adapter_that_does_something_else_is_refused(registered, tokenizer):
    class Shifted(Looped):
        def begin(self, embedded: Tensor, positions: Tensor) -> Tensor:
            return embedded + 1.0

    registered("shifted")(Shifted)
    with pytest.raises(UnsupportedModelError, match=r"off by .* standard deviations"):
        PoolDecoder(looped_llama(), tokenizer)


def test_attention_that_cannot_be_answered_is_refused(registered, tokenizer):
    class OwnAttention(Looped):
        def run(self, layers, states, positions, cache):
            heads = states.view(1, 4, len(states), -1) if len(states) else states
            cache.update(heads, heads, 0)
            return super().run(layers, states, positions, cache)

    registered("own_attention")(OwnAttention)
    with pytest.raises(UnsupportedModelError, match="its attention cannot be answered row by row"):
        PoolDecoder(looped_llama(), tokenizer)


def test_the_last_registered_adapter_is_asked_first_and_built_in_ones_stay(registered, tokenizer):
    class Another(Looped):
        pass

    registered("looped")(Looped)
    registered("another")(Another)
    assert isinstance(PoolDecoder(looped_llama(), tokenizer).stack.recurrent, Another)
    assert PoolDecoder(tiny_hrm(), tokenizer).stack.recurrent.name == "hrm_text"
    assert PoolDecoder(tiny_student(), tokenizer).stack.recurrent.name == "huginn"


def test_what_has_only_some_of_the_calls_is_an_ordinary_model(llama, tokenizer, monkeypatch):
    monkeypatch.setattr(type(llama), "embed_inputs", lambda self: None, raising=False)
    assert PoolDecoder(llama, tokenizer).cells[0].axis == "L"
    monkeypatch.setattr(type(llama), "iterate_one_step", lambda self: None, raising=False)
    monkeypatch.setattr(type(llama), "predict_from_latents", lambda self: None, raising=False)
    with pytest.raises(UnsupportedModelError, match="has Huginn's calls, but its config not its sizes"):
        PoolDecoder(llama, tokenizer)
