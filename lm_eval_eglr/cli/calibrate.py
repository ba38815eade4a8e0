"""``eglr calibrate``: the gate's threshold for a wanted share of gated tokens."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer
from eglr_selectors import Cell

from lm_eval_eglr.cli.output import check_writable, log, print_json
from lm_eval_eglr.cli.select import Json
from lm_eval_eglr.paths import DEMO, tasks_folder
from lm_eval_eglr.problems.prompts import zero_shot_prompt


def calibrate(
    model: Annotated[
        str, typer.Option(help="Hub name or folder; demo is the small model that ships with the package.")
    ] = DEMO,
    gate_rate: Annotated[float, typer.Option(help="Wanted share of gated tokens.")] = 0.2,
    prompts: Annotated[
        Path | None,
        typer.Option(help="JSON lines with problem or prompt. [default: validation problems of demo_eglr]"),
    ] = None,
    limit: Annotated[int, typer.Option(help="Most prompts that are used.")] = 20,
    max_new_tokens: Annotated[int, typer.Option(help="Length limit of each continuation, tokens.")] = 128,
    temperature: Annotated[
        float,
        typer.Option(help="Of the continuations; samples are less certain than greedy text."),
    ] = 0.0,
    dtype: Annotated[str, typer.Option(help="Type of the weights, as transformers names it.")] = "auto",
    gguf_file: Annotated[str | None, typer.Option(help="Weights in a GGUF file of that folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="HTML file that gets the distribution drawn.")] = None,
    json: Json = False,
) -> None:
    """Find the entropy threshold that gates a share of tokens, from a sample of plain decoding.

    Exits with 0, or with 2 when an option is wrong or the model cannot be loaded.
    """
    if not 0 < gate_rate < 1:
        raise ValueError(f"gate_rate={gate_rate!r}: expected a number > 0 and < 1")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature!r}: expected a number >= 0")
    if plot is not None:
        check_writable(plot)
    if model.startswith(("/", ".", "~")) and not Path(model).exists():
        raise ValueError(f"model={model!r}: no such folder")
    texts = read_prompts(prompts)[: max(1, limit)]
    from lm_eval_eglr import calibration  # torch and transformers: seconds of imports
    from lm_eval_eglr.decoding import PoolDecoder

    kwargs: dict[str, Any] = {"dtype": dtype}
    if gguf_file is not None:
        kwargs["gguf_file"] = gguf_file
    try:
        decoder = PoolDecoder.from_pretrained(
            model,
            model_kwargs=kwargs,
            temperatures=[temperature],
            trace=True,
        )
    except OSError as error:
        if Path(model).exists():
            raise
        raise ValueError(
            f"model={model!r}: no such folder here, and no such model in the hub's cache or on the hub "
            "as far as it can be reached"
        ) from error
    if decoder.engine.axis.letter == "R":
        raise ValueError(
            f"model={model!r}: a recurrent-depth model has no gate to calibrate; exit=kl with exit_threshold "
            "ends its iterations (docs/strategies.md)"
        )
    plain = [Cell(span=0, temperature=temperature)]
    chat = bool(getattr(decoder.tokenizer, "chat_template", None))
    inputs: Any = [[{"role": "user", "content": text}] for text in texts] if chat else texts
    pools = decoder.generate(inputs, max_new_tokens=max_new_tokens, cells=plain)
    found = calibration.calibrate(pools, gate_rate)
    if plot is not None:
        from lm_eval_eglr.reports.figures import entropy_distribution

        entropy_distribution(*found.bins(), found.threshold).write_html(plot, include_plotlyjs=True)
        log(f"wrote {plot}")
    if json:
        print_json(
            {
                "entropy_threshold": found.threshold,
                "gate_rate": found.gate_rate,
                "tokens": len(found.entropies),
                "prompts": found.prompts,
            }
        )
        return
    print(found.histogram())
    print(
        f"entropy_threshold={found.threshold:.4f} gates {found.gate_rate:.1%} of {len(found.entropies)} "
        f"tokens ({found.prompts} prompts)"
    )


def read_prompts(path: Path | None) -> list[str]:
    """Reads the sample of prompts: ``prompt`` or ``problem`` of each line.

    Raises:
        ValueError: If a line is no such thing, or there is none.
    """
    if path is None:
        # Never the problems that the demo task scores: a threshold is tuned on these.
        problems = read_prompts(tasks_folder() / "demo" / "demo_validation.jsonl")
        return [zero_shot_prompt(problem) for problem in problems]
    texts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json_module.loads(line)
            texts.append(str(record["prompt"] if "prompt" in record else record["problem"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path}, line {number}: expected JSON with prompt or problem") from None
    if not texts:
        raise ValueError(f"{path}: no prompts")
    return texts
