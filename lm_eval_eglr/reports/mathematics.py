r"""LaTeX as MathML for the page, made when the page is built, so that no script of others has to run in it.

The converter copies the text inside ``\text{}`` and the address inside ``\href{}`` as they are. So its result
is parsed again and only elements and attributes of a fixed list are taken; whatever else a formula has in it,
the formula is shown as it was written. The page makes the elements itself, from names and text.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from functools import lru_cache
from typing import TypeAlias

from latex2mathml.converter import convert

Node: TypeAlias = "str | list[object]"
"""Text, or an element: its name, its children, and its attributes if it has any."""

ELEMENTS = frozenset(
    (
        *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msup", "msub"),
        *("msubsup", "mover", "munder", "munderover", "mtable", "mtr", "mtd", "mfenced", "mpadded", "mstyle"),
        *("mphantom", "menclose"),
    )
)
ATTRIBUTES = frozenset(
    (
        *("display", "stretchy", "fence", "form", "separator", "accent", "accentunder", "linethickness"),
        *("width", "columnalign", "rowspacing", "columnspacing", "columnlines", "rowlines", "mathvariant"),
        *("displaystyle", "scriptlevel", "lspace", "rspace", "notation"),
    )
)
LONGEST_TEXT = 20_000
"""Characters of a text that is searched for formulas."""
LONGEST = 2_000
"""Characters of a formula that is converted; a longer one is shown as it was written."""
DEEPEST = 60
"""Elements in each other; a formula that nests deeper is shown as it was written."""

# Lengths are bounded, so that no text takes longer than its length times the bound.
_DELIMITED = re.compile(
    r"\$\$(?P<display>.{1,2000}?)\$\$|\\\[(?P<bracket>.{1,2000}?)\\\]|\\\((?P<paren>.{1,2000}?)\\\)"
    r"|(?<![\\$])\$(?P<inline>[^$\n]{1,2000}?)(?<!\\)\$(?!\d)",
    re.DOTALL,
)
_LATEX = re.compile(r"\\[a-zA-Z]|[\^_]")


def mathematics_in(text: str) -> list[Node]:
    r"""Splits a text at ``$...$``, ``$$...$$``, ``\(...\)`` and ``\[...\]``; formulas become elements.

    A sum of money (``$5 and $7``) stays text: a closing dollar is not followed by a digit.
    """
    if len(text) > LONGEST_TEXT:
        return [text]
    nodes: list[Node] = []
    end = 0
    for match in _DELIMITED.finditer(text):
        formula = next(group for group in match.groups() if group is not None)
        display = match.lastgroup in ("display", "bracket")
        node = formula_node(formula, display)
        if isinstance(node, str):
            continue
        if match.start() > end:
            nodes.append(text[end : match.start()])
        nodes.append(node)
        end = match.end()
    if end < len(text) or not nodes:
        nodes.append(text[end:])
    return nodes


def answer_node(text: str) -> Node:
    """An answer without delimiters: converted if it looks like LaTeX, else its text."""
    return formula_node(text) if _LATEX.search(text) else text


@lru_cache(maxsize=50_000)
def formula_node(formula: str, display: bool = False) -> Node:
    """Converts one formula; returns its text where that fails or the result has anything unexpected in it."""
    if len(formula) > LONGEST or not formula.strip():
        return formula
    try:
        # Two commands that the converter does not know, and that problems often have.
        known = formula.replace("\\!", "").replace("\\gcd", "\\operatorname{gcd}")
        root = ElementTree.fromstring(convert(known, display="block" if display else "inline"))
        return _checked(root)
    # The converter raises what it likes for formulas that are none: its own errors, IndexError, KeyError.
    except Exception:
        return formula


def _checked(element: ElementTree.Element, depth: int = 0) -> list[object]:
    name = element.tag.rpartition("}")[2]
    unknown = element.attrib.keys() - ATTRIBUTES
    if name not in ELEMENTS or unknown or depth > DEEPEST:
        raise ValueError(f"{name}: not an element of mathematics")
    # The converter leaves a name that it does not know as a command: better the formula as it was written.
    if element.text and element.text.startswith("\\"):
        raise ValueError(f"{element.text}: not converted")
    children: list[object] = [element.text] if element.text else []
    for child in element:
        children.append(_checked(child, depth + 1))
        if child.tail:
            children.append(child.tail)
    return [name, children, dict(element.attrib)] if element.attrib else [name, children]
