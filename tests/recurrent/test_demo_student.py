"""The class of the recurrent-depth demo model: its iterations, its cache, its padding, its gradients."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from lm_eval_eglr.recurrent.demo_student import RecurrentStudentForCausalLM
from lm_eval_eglr.recurrent.demo_student_layers import RecurrentStudentConfig


@pytest.fixture(scope="module")
def model() -> RecurrentStudentForCausalLM:
    """Two layers in every part, weights large enough for iterations to matter."""
    torch.manual_seed(3)
    config = RecurrentStudentConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=2,
        mean_recurrence=3,
        n_layers_in_prelude=2,
        n_layers_in_recurrent_block=2,
        n_layers_in_coda=2,
        pad_token_id=0,
        initializer_range=0.3,
    )
    return RecurrentStudentForCausalLM(config).double().eval()


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(1, 61, (2, 9), generator=torch.Generator().manual_seed(0))


def by_parts(model: RecurrentStudentForCausalLM, ids: torch.Tensor, steps: int) -> torch.Tensor:
    """The logits from the public calls that Huginn has, too."""
    positions = torch.arange(ids.shape[1])[None]
    embedded, block = model.embed_inputs(ids, position_ids=positions)
    states, step = model.initialize_state(embedded), 0
    for _ in range(steps):
        states, block, step = model.iterate_one_step(
            embedded, states, position_ids=positions, block_idx=block, current_step=step
        )
    assert step == steps
    logits = model.predict_from_latents(states, position_ids=positions).logits
    assert logits is not None
    return logits


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_forward_is_its_public_calls_in_turn(model, ids, steps: int) -> None:
    torch.testing.assert_close(model(ids, num_steps=steps).logits, by_parts(model, ids, steps))


@torch.no_grad()
def test_the_model_has_a_number_of_iterations_of_its_own_and_each_one_matters(model, ids) -> None:
    own = model(ids).logits
    assert torch.equal(own, model(ids, num_steps=3).logits)
    others = [model(ids, num_steps=steps).logits for steps in (1, 2, 4)]
    assert all((own - other).abs().max() > 0.01 for other in others)


@torch.no_grad()
def test_the_first_state_depends_on_nothing_that_was_drawn(model, ids) -> None:
    embedded, _ = model.embed_inputs(ids)
    torch.manual_seed(1)
    first = model.initialize_state(embedded)
    torch.manual_seed(2)
    assert torch.equal(first, model.initialize_state(embedded.flip(0)))
    other = torch.ones_like(first)
    assert torch.equal(model(ids, input_states=first).logits, model(ids).logits)
    assert not torch.allclose(model(ids, input_states=other).logits, model(ids).logits)


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("pieces", [(9,), (1,) * 9, (4, 5), (6, 1, 2)])
def test_a_cache_changes_no_logits(model, ids, steps: int, pieces: tuple[int, ...]) -> None:
    whole = model(ids, num_steps=steps, use_cache=False)
    assert whole.past_key_values is None
    cache, found = DynamicCache(), []
    for piece in ids.split(pieces, dim=1):
        found.append(model(piece, num_steps=steps, past_key_values=cache).logits)
    torch.testing.assert_close(torch.cat(found, dim=1), whole.logits)
    assert len(cache.layers) == 2 + 2 + 2 * steps
    assert cache.get_seq_length() == 9


@torch.no_grad()
def test_padding_on_the_left_changes_no_logits(model, ids) -> None:
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), ids], dim=1)
    mask = (padded != 0).long()
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    output = model(padded, attention_mask=mask, position_ids=positions)
    assert output.logits.isfinite().all()
    torch.testing.assert_close(output.logits[:, 3:], model(ids).logits)


@torch.no_grad()
def test_generation_is_the_greedy_one_for_any_number_of_iterations(model, ids) -> None:
    for steps in (1, 4):
        found = model.generate(ids[:1], max_new_tokens=6, do_sample=False, num_steps=steps)
        expected = ids[:1]
        for _ in range(6):
            best = model(expected, num_steps=steps, use_cache=False).logits[:, -1].argmax(-1)
            expected = torch.cat([expected, best[:, None]], dim=1)
        assert torch.equal(found, expected)
        again = model.generate(ids[:1], max_new_tokens=6, do_sample=False, num_steps=steps, use_cache=False)
        assert torch.equal(found, again)
    own = model.generate(ids[:1], max_new_tokens=6, do_sample=False)
    assert torch.equal(own, model.generate(ids[:1], max_new_tokens=6, do_sample=False, num_steps=3))


@torch.no_grad()
def test_positions_may_be_those_of_tokens_that_lie_flat(model, ids) -> None:
    """A rotation by the position, whatever column a token has: all shifted, all the same."""
    positions = torch.arange(9)[None] + 5
    torch.testing.assert_close(model(ids, position_ids=positions).logits, model(ids).logits)
    backwards = model(ids, position_ids=positions.flip(1)).logits
    assert not torch.allclose(backwards, model(ids).logits, atol=1e-3)


def test_truncated_backpropagation_sees_the_last_iterations_only(model, ids) -> None:
    def gradient(num_steps: object, first: torch.Tensor) -> torch.Tensor | None:
        model.zero_grad()
        model(ids, input_states=first, num_steps=num_steps, labels=ids).loss.backward()
        return first.grad

    embedded, _ = model.embed_inputs(ids)
    first = torch.zeros_like(embedded).requires_grad_()
    assert gradient((2, 2), first) is None
    whole = torch.zeros_like(embedded).requires_grad_()
    reached = gradient((0, 4), whole)
    assert reached is not None
    assert reached.abs().max() > 0
    with torch.no_grad():
        same = [model(ids, num_steps=steps, labels=ids).loss for steps in (4, (2, 2), (4, 0))]
    assert len({float(each) for each in same}) == 1


def test_labels_are_predicted_from_what_comes_before_them(model, ids) -> None:
    labels = ids.clone()
    labels[:, :4] = -100
    output = model(ids, labels=labels)
    chosen = output.logits.log_softmax(-1)[:, 3:-1].gather(-1, ids[:, 4:, None])
    torch.testing.assert_close(output.loss, -chosen.mean())


@torch.no_grad()
def test_only_the_last_logits_are_made_where_only_they_are_wanted(model, ids) -> None:
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, model(ids).logits[:, -2:])


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3", (0, 0), (1, -1), (1, 2, 3), True])
def test_what_is_no_number_of_iterations_is_refused(model, ids, steps: object) -> None:
    with pytest.raises(ValueError, match=r"num_steps=.*: expected an integer >= 1"):
        model(ids, num_steps=steps)


@torch.no_grad()
def test_a_cache_of_other_iterations_is_refused(model, ids) -> None:
    cache = model(ids, num_steps=2).past_key_values
    with pytest.raises(ValueError, match="num_steps=4: the cache was filled with num_steps=2"):
        model(ids[:, :1], num_steps=4, past_key_values=cache)


@torch.no_grad()
def test_a_saved_model_is_loaded_by_transformers(model, ids, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is RecurrentStudentConfig
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is RecurrentStudentForCausalLM
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
