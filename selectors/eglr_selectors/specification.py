"""Selectors written as text: ``majority``, ``entropy_weighted(beta=2)``, ``cell(2, 0.7, 0)``, ``pass@4``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

_PASS = "pass_"
"""Stands for ``pass``, which is a keyword of the grammar that specifications are read by."""


@dataclass(frozen=True, slots=True)
class Specification:
    """A name with the arguments that stand in parentheses behind it.

    Attributes:
        name: The registered name.
        positional: Arguments without a name, in order.
        options: Arguments with a name.
        k: The size behind an ``@``, of a figure such as ``pass@4``; the letter ``k`` where it is yet to be
            said, ``None`` where there is none.
    """

    name: str
    positional: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    k: int | Literal["k"] | None = None

    def __str__(self) -> str:
        arguments = [repr(value) for value in self.positional]
        arguments += [f"{key}={value!r}" for key, value in self.options.items()]
        text = f"{self.name}({', '.join(arguments)})" if arguments else self.name
        return text if self.k is None else f"{text}@{self.k}"


def parse_specification(text: str) -> Specification:
    """Reads one name with optional arguments; nothing is evaluated but literals.

    A bare word or a call as an argument is taken as text, so that a verifier needs no quotes:
    ``best_of_n(verifier=mine)``.

    Raises:
        ValueError: If the text is no such thing.
    """
    return _read(_expression(text), text)


def split_specifications(text: str | Iterable[str]) -> list[str]:
    """Splits ``"majority,entropy_weighted(beta=2,...)"`` at the commas outside parentheses.

    Args:
        text: The list as one text, or fragments of it that something else has already split at
            every comma.

    Raises:
        ValueError: If a part of it cannot be read.
    """
    text = text if isinstance(text, str) else ",".join(text)
    if not text.strip(" ,"):
        return []
    parts = _expression(f"[{text}]")
    assert isinstance(parts, ast.List), "brackets make a list"
    return [str(_read(part, text)) for part in parts.elts]


def _expression(text: str) -> ast.expr:
    try:
        return ast.parse(re.sub(r"\bpass(?=\s*@)", _PASS, text.strip()), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"{text!r}: expected a name, or a name with arguments such as cell(2, 0.7, 0)"
        ) from error


def _read(node: ast.expr, text: str) -> Specification:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        whole = _read(node.left, text)
        name = "pass" if whole.name == _PASS else whole.name
        return replace(whole, name=name, k=_size(node.right, text))
    if isinstance(node, ast.Name):
        return Specification(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        options: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ValueError(f"{text!r}: ** is not allowed")
            options[keyword.arg] = _value(keyword.value, text)
        return Specification(node.func.id, tuple(_value(each, text) for each in node.args), options)
    raise ValueError(f"{text!r}: expected a name, or a name with arguments such as cell(2, 0.7, 0)")


def _size(node: ast.expr, text: str) -> int | Literal["k"]:
    if isinstance(node, ast.Name) and node.id == "k":
        return "k"
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value >= 1:
        return node.value
    raise ValueError(f"{text!r}: expected a number of rollouts >= 1 behind @, such as pass@4")


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name | ast.Call):
        return str(_read(node, text))
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ValueError(
            f"{text!r}: {ast.unparse(node)} is neither a number, a text, a list nor a name"
        ) from error
