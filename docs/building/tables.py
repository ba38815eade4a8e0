"""Tables that are made from the code, so that they cannot drift from it.

``<!-- table: arguments -->`` in a page is followed by the arguments of hf-eglr, ``<!-- table: hf -->`` by
those of lm_eval's ``hf`` that keep their meaning, ``<!-- table: commands -->`` by those of ``eglr``.
``python docs/building/tables.py`` writes the first into its page, where the repository shows it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = ROOT / "docs" / "reference" / "arguments.md"
MARK = re.compile(r"<!-- table: (\w+) -->\n(?:\n?(?:\|.*\n)+)?")
ROLE = re.compile(r":\w+:`~?([\w.]+)`")


def filled(markdown: str, names: Iterable[str] | None = None) -> str:
    """The page with its tables made anew: those that are named, or all."""
    wanted = TABLES.keys() if names is None else names

    def table(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n\n{TABLES[match[1]]()}\n" if match[1] in wanted else match[0]

    return MARK.sub(table, markdown)


def arguments_table() -> str:
    """The arguments of hf-eglr: names and defaults from the signatures, meanings from the docstrings.

    Nothing is imported: the source is read.
    """
    package = griffe.load("lm_eval_eglr", search_paths=[ROOT, ROOT / "selectors"])
    model = package["harness.model.EGLRLM.__init__"]
    rows = []
    meanings = _described(model.docstring, "parameters")
    for parameter in model.parameters:
        if parameter.name in meanings and parameter.name not in ("pretrained", "kwargs"):
            default = _default(package, parameter.name) or _shown(str(parameter.default))
            rows.append((parameter.name, default, meanings[parameter.name]))
    for name in (
        "decoding.config.RecursionConfig",
        "decoding.config.SamplingConfig",
        "recurrent.config.RecurrentConfig",
    ):
        config = package[name]
        meanings = _described(config.docstring, "attributes")
        for field, meaning in meanings.items():
            shown = f"{field}` with `recurrences" if field in [name for name, *_ in rows] else field
            rows.append((shown, _shown(str(config.members[field].value)), meaning))
    lines = [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in rows]
    return "\n".join(["| argument | default | meaning |", "| --- | --- | --- |", *lines])


def hf_arguments() -> str:
    """The arguments of lm_eval's hf, as a list."""
    model = griffe.load("lm_eval.models.huggingface", resolve_aliases=False)["HFLM.__init__"]
    names = [p.name for p in model.parameters if p.name not in ("self", "pretrained", "kwargs")]
    return ", ".join(f"`{name}`" for name in names) + "."


def commands() -> str:
    """Every command of ``eglr`` with its arguments and options, as ``--help`` has them."""
    import typer

    from lm_eval_eglr.cli.app import app

    group = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        parts.append(f"## eglr {name}\n\n{command.help}\n")
        rows = ["| | default | |", "| --- | --- | --- |"]
        for parameter in command.params:
            record = parameter.get_help_record(context)
            if parameter.name == "help" or record is None:
                continue
            option = parameter.param_type_name == "option"
            shown = (
                ", ".join(f"`{each}`" for each in parameter.opts)
                if option
                else f"`{parameter.metavar or parameter.name.upper()}`"
            )
            default = parameter.default
            plain = default is None or default is False or not isinstance(default, (str, int, float, Path))
            meaning = (getattr(parameter, "help", None) or "").replace("|", "\\|")
            rows.append(f"| {shown} | {'' if plain else f'`{default}`'} | {meaning} |")
        parts.append("\n".join(rows) + "\n")
        examples = [line.strip() for line in (command.epilog or "").splitlines()[2:]]
        parts.append("\n".join(["```bash", *examples, "```"]) + "\n")
    return "\n".join(parts)


TABLES = {"arguments": arguments_table, "hf": hf_arguments, "commands": commands}


def _described(docstring: griffe.Docstring, kind: str) -> dict[str, str]:
    sections = docstring.parse("google", warnings=False)
    [items] = [section.value for section in sections if section.kind.value == kind]
    return {item.name.lstrip("*"): _one_line(item.description) for item in items}


def _one_line(text: str) -> str:
    text = ROLE.sub(lambda match: f"`{match[1].rsplit('.', 1)[-1]}`", " ".join(text.split()))
    return text.replace("``", "`").replace("|", "\\|")


def _default(package: griffe.Module, name: str) -> str | None:
    """The default that the grid has where the signature says None."""
    found = package["decoding.strategies.grid"].members.get(f"DEFAULT_{name.upper()}")
    return None if found is None else _shown(str(found.value))


def _shown(source: str) -> str:
    value = ast.literal_eval(source)
    return "none" if value is None else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    ARGUMENTS.write_text(filled(ARGUMENTS.read_text(encoding="utf-8"), ["arguments"]), encoding="utf-8")
