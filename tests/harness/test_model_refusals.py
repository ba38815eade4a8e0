"""Bad arguments of hf-eglr: one clear line, before the model is loaded where that is possible."""

from __future__ import annotations

import json

import pytest
from tiny_models import byte_tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from lm_eval_eglr.harness.model import EGLRLM


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strenght": 0.1}, r"strenght=0.1: unknown argument of hf-eglr; did you mean strength\?"),
        ({"span": "0:2"}, r"span='0:2': unknown argument of hf-eglr; did you mean spans\?"),
        ({"strength": 2}, r"strength=2: expected a number >= 0 and <= 1"),
        ({"temperatures": "0:-1"}, r"temperatures: '-1' is neither"),
        ({"spans": "0:x"}, r"spans: 'x' is neither"),
        ({"update": None}, r"update='none': expected one of anchored, damped, replace"),
        ({"noise": None}, r"noise='none': expected one of shared, independent"),
        ({"max_recursions": None}, r"max_recursions='none': expected an integer >= 0"),
        ({"update": "other"}, r"update='other': expected one of anchored, damped, replace"),
        ({"selector": "majorty"}, r"majorty.*majority"),
        ({"tp_plan": "auto"}, r"tp_plan='auto': this is one process; start several with torchrun"),
        ({"tp_plan": "colwise"}, r"tp_plan='colwise': expected auto, or a mapping"),
        ({"tp_size": 2}, r"tp_size=2: this is one process; start several with torchrun"),
        ({"tp_size": 0}, r"tp_size=0: expected a whole number >= 1"),
        ({"tp_size": 2, "parallelize": True}, r"tp_size=2: parallelize=True splits a model in another way"),
        (
            {"rollouts": "/proc/none/rollouts.jsonl"},
            r"rollouts='/proc/none/rollouts.jsonl': cannot be written",
        ),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_the_model_is_looked_for(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        EGLRLM(pretrained="no/such-model", device="cpu", **arguments)
    assert "\n" not in str(caught.value)


def test_a_span_deeper_than_the_model(tiny_folder):
    with pytest.raises(ValueError, match="spans: '5' is deeper than the model, which has 4 layers"):
        EGLRLM(pretrained=tiny_folder, device="cpu", spans="0:5")


def test_code_of_a_model_that_is_not_trusted_is_named_with_the_argument_that_trusts_it(tmp_path, monkeypatch):
    """The first line of transformers' message does not say it."""
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    classes = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "of_its_own", "auto_map": classes}))
    (tmp_path / "code.py").write_text("Config = Model = None\n")
    with pytest.raises(
        ValueError, match=r"custom code.*; if you trust that code, add trust_remote_code=True$"
    ):
        EGLRLM(pretrained=str(tmp_path), device="cpu")


def test_an_encoder_decoder_model_is_refused_by_name(tmp_path):
    config = T5Config(vocab_size=257, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="encoder-decoder") as caught:
        EGLRLM(pretrained=str(tmp_path), device="cpu")
    assert "\n" not in str(caught.value)


def test_rollouts_that_are_there_are_not_overwritten(tmp_path, tiny_folder):
    path = tmp_path / "rollouts.jsonl"
    path.write_text("precious\n")
    with pytest.raises(ValueError, match="cannot be written"):
        EGLRLM(pretrained=tiny_folder, device="cpu", rollouts=str(path))
    assert path.read_text() == "precious\n"


def test_arguments_of_hf_keep_working(tiny_folder):
    model = EGLRLM(pretrained=tiny_folder, device="cpu", dtype="float64", batch_size=4, max_length=99)
    assert (str(model.model.dtype), model.batch_size, model.max_length) == ("torch.float64", 4, 99)
