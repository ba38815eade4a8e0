"""Reward models on tiny models: heads set by hand, whose figures are known, and random ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from eglr_selectors import RolloutPool, parse_pool, select
from eglr_selectors.verifiers import ProcessRewardModel, RewardModel, get_verifier

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# What each word is worth to a model whose head is set by hand; other words are worth nothing.
WORTH = {"good": 1.5, "fair": 0.5, "bad": -1.0}
TEMPLATE = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
MARKS = ["[UNK]", "<extra_0>", "ки", "+", "-", "\n", "<user>", "<assistant>", "<system>"]


def _tokenizer(**options):
    """Whole words, line ends apart."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    words = [*MARKS, *WORTH, "one", "two", "three"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" +"), "removed"),
            pre_tokenizers.Split("\n", "isolated"),
        ]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", model_max_length=64, **options
    )
    fast.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    return fast


def _config(**options):
    return transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=4,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=None,
        **options,
    )


def _set_worth(model, tokenizer) -> None:
    """Turns the layers off and gives every word's embedding its worth, at a root mean square of 1."""
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        worth = torch.zeros(32)
        for word, value in WORTH.items():
            worth[tokenizer.convert_tokens_to_ids(word)] = value
        rest = torch.zeros(32)
        model.model.embed_tokens.weight.copy_(torch.stack([worth, (4 - worth**2).sqrt(), rest, rest], dim=1))


def _by_hand(kind: str = "sequence", labels: int = 1):
    tokenizer = _tokenizer(chat_template=TEMPLATE)
    auto = {
        "sequence": transformers.LlamaForSequenceClassification,
        "token": transformers.LlamaForTokenClassification,
    }[kind]
    model = auto(_config(num_labels=labels)).eval()
    _set_worth(model, tokenizer)
    with torch.no_grad():
        model.score.weight.zero_()
        model.score.weight[labels - 1, 0] = 1.0
        if getattr(model.score, "bias", None) is not None:
            model.score.bias.zero_()
    return model, tokenizer


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _texts(*texts: str) -> RolloutPool:
    return RolloutPool.from_texts(texts, prompt="one two")


def test_a_reward_is_the_heads_figure_at_the_last_token() -> None:
    verifier = RewardModel(_by_hand, batch_size=2)
    pool = _texts("one two three bad", "good", "two fair", "three one")
    assert verifier.score("one two", pool) == pytest.approx([-1.0, 1.5, 0.5, 0.0], abs=1e-4)
    squashed = RewardModel(_by_hand, sigmoid=True).score("one two", pool)
    assert squashed == pytest.approx([_sigmoid(x) for x in (-1.0, 1.5, 0.5, 0.0)], abs=1e-4)
    assert select(pool, "best_of_n", verifier=verifier).index == 1


def test_an_end_token_is_scored_even_if_it_pads() -> None:
    model, tokenizer = _by_hand()
    tokenizer.eos_token = "good"
    verifier = RewardModel(lambda: (model, tokenizer), batch_size=4)
    assert verifier.score("one", _texts("bad good", "one two three")) == pytest.approx([1.5, 0], abs=1e-4)
    assert model.config.pad_token_id is None


def test_what_is_too_long_is_not_known() -> None:
    verifier = RewardModel(_by_hand)
    scores = verifier.score("one", _texts("two " * 70 + "good", "good"))
    assert math.isnan(scores[0])
    assert scores[1] == pytest.approx(1.5, abs=1e-4)


def test_a_random_models_scores_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    model = transformers.LlamaForSequenceClassification(_config(num_labels=1, initializer_range=1.0)).eval()
    tokenizer = _tokenizer(chat_template=TEMPLATE)
    pool = _texts("one", "good bad fair one two three", "bad two", "three " * 20)
    alone = RewardModel(lambda: (model, tokenizer), batch_size=1).score("two", pool)
    together = RewardModel(lambda: (model, tokenizer), batch_size=4).score("two", pool)
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(alone)) == 4
    chat = [{"role": "user", "content": "two"}, {"role": "assistant", "content": "bad two"}]
    ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), return_tensors="pt").input_ids
    with torch.no_grad():
        assert alone[2] == pytest.approx(model(ids).logits.item(), abs=1e-5)


def test_a_reward_model_needs_its_template_and_one_output() -> None:
    bare = _by_hand()[0], _tokenizer()
    with pytest.raises(ValueError, match="no chat template"):
        RewardModel(lambda: bare).score("one", _texts("good"))
    with pytest.raises(ValueError, match="2 outputs, expected 1"):
        RewardModel(lambda: _by_hand(labels=2)).score("one", _texts("good"))
    with pytest.raises(ValueError, match="batch_size=0"):
        RewardModel(_by_hand, batch_size=0)


def test_a_saved_reward_model_is_named_on_the_command_line(tmp_path: Path) -> None:
    model, tokenizer = _by_hand()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pool = _texts(r"\boxed{1} bad", r"\boxed{2} good", r"\boxed{1} bad")
    chosen = select(pool, f"best_of_n(verifier=reward_model(model={str(tmp_path)!r}))")
    assert chosen.answer == "2"
    voted = select(pool, f"weighted_vote(verifier=reward_model(model={str(tmp_path)!r}, sigmoid=True))")
    assert voted.weights == pytest.approx({0: 2 * _sigmoid(-1), 1: _sigmoid(1.5)}, abs=1e-4)


def test_a_model_that_nobody_asks_is_not_loaded() -> None:
    verifier = get_verifier("reward_model(model='there/is-none')")
    assert parse_pool(_texts("1")).problem == "one two"
    assert verifier.score is not None


QWEN = "one good\n\ntwo fair\n\nthree bad"
LINES = "one good\ntwo fair\nthree bad"
GOOD = [_sigmoid(1.5), _sigmoid(0.5), _sigmoid(-1.0)]


def _qwen():
    """A token classifier that judges the step mark by... the mark alone: layers are off."""
    return _by_hand("token", labels=2)


def test_qwen_answers_at_its_step_marks() -> None:
    # With its layers off the model sees nothing but the mark, so the mark is given a worth.
    model, tokenizer = _qwen()
    mark = tokenizer.convert_tokens_to_ids("<extra_0>")
    with torch.no_grad():
        model.model.embed_tokens.weight[mark] = torch.tensor([0.5, math.sqrt(3.75), 0, 0])
    verifier = ProcessRewardModel(lambda: (model, tokenizer))
    steps = verifier.score_steps("one", _texts(QWEN, "good", ""))
    assert [len(each) for each in steps] == [3, 1, 0]
    assert steps[0] == pytest.approx([_sigmoid(0.5)] * 3, abs=1e-4)
    assert math.isnan(verifier.score("one", _texts(""))[0])


def test_qwen_layout_is_a_chat_with_a_mark_after_every_step() -> None:
    from eglr_selectors.verifiers.step_conventions import CONVENTIONS

    tokenizer = _tokenizer(chat_template=TEMPLATE)
    ids, positions = CONVENTIONS["qwen"].lay_out(tokenizer, "two", ["one good", "three bad"])
    words = tokenizer.convert_ids_to_tokens(ids)
    assert words[words.index("<user>") :] == [
        *("<user>", "two", "<assistant>", "one", "good", "<extra_0>", "three", "bad", "<extra_0>")
    ]
    assert [words[position] for position in positions] == ["<extra_0>"] * 2


def _value_model():
    """A backbone whose value head reads a word's worth from its embedding."""
    tokenizer = _tokenizer(chat_template=TEMPLATE)
    model = transformers.LlamaForCausalLM(_config())
    _set_worth(model, tokenizer)
    return model, tokenizer


def test_skywork_reads_a_value_head_from_the_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, tokenizer = _value_model()
    with torch.no_grad():
        # the value is read at the line's end
        model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids("\n")] = torch.tensor(
            [1.0, math.sqrt(3), 0, 0]
        )
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no v_head"):
        ProcessRewardModel.from_pretrained(str(tmp_path), convention="skywork").score("one", _texts(LINES))
    weights = load_file(tmp_path / "model.safetensors")
    weights["v_head.summary.weight"] = torch.tensor([[2.0, 0, 0, 0]])
    weights["v_head.summary.bias"] = torch.tensor([-0.5])
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    verifier = ProcessRewardModel.from_pretrained(str(tmp_path), convention="skywork")
    steps = verifier.score_steps("one", _texts(LINES, "good"))
    assert steps[0] == pytest.approx([_sigmoid(1.5)] * 3, abs=1e-4)
    assert len(steps[1]) == 1


def _shepherd():
    """A causal LM that is sure of + after ки to the degree that ки is worth."""
    tokenizer = _tokenizer(chat_template=TEMPLATE)
    model = transformers.LlamaForCausalLM(_config(tie_word_embeddings=False)).eval()
    _set_worth(model, tokenizer)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("+"), 0] = 1.0
        model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids("ки")] = torch.tensor(
            [-1.0, math.sqrt(3), 0, 0]
        )
    return model, tokenizer


def test_math_shepherd_weighs_plus_against_minus() -> None:
    verifier = ProcessRewardModel(_shepherd, convention="math_shepherd")
    steps = verifier.score_steps("one", _texts(LINES, "a ки b"))
    assert steps[0] == pytest.approx([_sigmoid(-1.0)] * 3, abs=1e-4)
    assert steps[1] == [], "its text holds the step mark"


@pytest.mark.parametrize(
    ("convention", "kind"), [("math_shepherd", "language"), ("qwen", "token")], ids=["shepherd", "qwen"]
)
def test_a_saved_process_model_scores_as_the_loaded_one(convention, kind, tmp_path: Path) -> None:
    model, tokenizer = _shepherd() if kind == "language" else _qwen()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    saved = ProcessRewardModel.from_pretrained(str(tmp_path), convention=convention)
    loaded = ProcessRewardModel(lambda: (model, tokenizer), convention=convention)
    pool = _texts(LINES, "good")
    assert saved.score_steps("one", pool) == loaded.score_steps("one", pool)


def test_a_value_head_is_found_in_a_checkpoint_of_several_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model, tokenizer = _value_model()
    folders = tmp_path / "one", tmp_path / "several"
    for folder in folders:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    body = {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    head = {
        "v_head.summary.weight": torch.tensor([[2.0, 0, 0, 0]]),
        "v_head.summary.bias": torch.tensor([-0.5]),
    }
    save_file({**body, **head}, folders[0] / "model.safetensors", metadata={"format": "pt"})
    (folders[1] / "model.safetensors").unlink()
    places = {}
    for number, weights in enumerate((body, head), 1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file(weights, folders[1] / name, metadata={"format": "pt"})
        places |= dict.fromkeys(weights, name)

    def scores(folder):
        verifier = ProcessRewardModel.from_pretrained(str(folder), convention="skywork")
        return verifier.score_steps("one", _texts(LINES))

    index = folders[1] / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert scores(folders[1]) == scores(folders[0])
    del places["v_head.summary.bias"]
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    with pytest.raises(ValueError, match=r"no v_head\.summary\.bias in its checkpoint"):
        scores(folders[1])


def test_steps_see_what_came_before_them() -> None:
    torch.manual_seed(0)
    model = transformers.LlamaForTokenClassification(_config(num_labels=2, initializer_range=1.0)).eval()
    tokenizer = _tokenizer(chat_template=TEMPLATE)
    verifier = ProcessRewardModel(lambda: (model, tokenizer), batch_size=2)
    whole, start, other = verifier.score_steps("one", _texts(QWEN, "one good", "bad\n\ntwo fair"))
    assert start[0] == pytest.approx(whole[0], abs=1e-5)
    assert other[1] != pytest.approx(whole[1], abs=1e-5)
    single = ProcessRewardModel(lambda: (model, tokenizer), batch_size=1)
    assert single.score_steps("one", _texts(QWEN))[0] == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    ("aggregation", "expected"), [("last", 0.5), ("min", 0.2), ("mean", 0.5), ("prod", 0.08)]
)
def test_steps_become_one_figure(monkeypatch, aggregation: str, expected: float) -> None:
    verifier = ProcessRewardModel(_shepherd, aggregation=aggregation)
    monkeypatch.setattr(
        ProcessRewardModel, "score_steps", lambda self, problem, rollouts: [[0.8, 0.2, 0.5], []]
    )
    scores = verifier.score("one", _texts("x", "y"))
    assert scores[0] == pytest.approx(expected)
    assert math.isnan(scores[1])


def test_bad_process_options_are_refused() -> None:
    with pytest.raises(ValueError, match="convention='gpt'"):
        get_verifier("process_reward_model(model=x, convention=gpt)")
    with pytest.raises(ValueError, match="aggregation='max'.*last, min, mean, prod"):  # noqa: RUF043
        get_verifier("process_reward_model(model=x, aggregation=max)")
    with pytest.raises(ValueError, match="1 outputs per token, expected 2"):
        ProcessRewardModel(lambda: _by_hand("token", labels=1)).score("one", _texts("good"))
