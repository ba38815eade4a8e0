"""What must not reach sympy, even in a worker: texts whose parsing or evaluation is known to blow up."""

from __future__ import annotations

import re

MAX_LENGTH = 400
MAX_BRACKETS = 12
MAX_DIGITS = 25

_PATTERNS = {
    "tower of powers": re.compile(r"\^\s*(?:\{[^{}]*\^|\(?[^\s{}+*/=,-]{1,12}\^|-?\w+\s*\^)"),
    "huge exponent": re.compile(r"\^\s*[{(]?\s*-?\d{4,}|\^\s*[{(]?-?\d[\d.]*e\d|\d[eE][-+]?\d{4,}"),
    "power of a sum": re.compile(r"(?:[)\]]|(?<!_)\{[^{}]*[-+][^{}]*\})\s*\^\s*[{(]?\s*\d{2,}"),
    "factorial": re.compile(r"\d{4,}\s*!|!\s*!|!\s*[)}\]]\s*!|\^[^!]*!"),
    "binomial": re.compile(r"binom(?:ial)?\s*\{?\(?\s*\d{5,}|binom\s*\{[^{}]*[!^]"),
    "named operation": re.compile(
        r"operatorname|\\(?:det|gcd|lcm|mod|pmod)\b|(?:eye|ones|zeros|diag|rand)\b"
    ),
    "large sum or product": re.compile(
        r"\\(?:sum|prod|bigcup|int|iint|iiint|oint|lim)\b.*(?:\d{4,}|\^.*\^.*\^)"
    ),
    "code": re.compile(r"__|['\"`;]|\bimport\b|\blambda\b|\beval\b|\bexec\b|\(\)\."),
    "signs that math-verify drops": re.compile(
        r"\\mathbb|\d\s*_|[$£€¥%]|[^\x00-\x7f]|(?:sin|cos|tan|cot|sec|csc)h?\s*_"
    ),
    "chain of commands": re.compile(r"(?:\\[A-Za-z]+[\s{(]*){8}"),
}
_MOST = {r"\sqrt": 8, "√": 8, "&": 40, r"\\": 8, r"\int": 2, r"\sum": 2, r"\prod": 2, r"\lim": 2}
"""How often a sign may occur: sums of surds, determinants and iterated integrals take exponential time."""


def balanced(text: str) -> bool:
    r"""Whether braces and bars open and close in order: ``\pi}{4}`` in a box is read as its first half."""
    level = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        level += 1 if brace == "{" else -1
        if level < 0:
            return False
    return level == 0 and text.count("|") % 2 == 0


def guard(text: str) -> str:
    """Returns what makes a text too dangerous for sympy; empty if nothing is known to."""
    if len(text) > MAX_LENGTH:
        return "too long"
    level = deepest = 0
    for character in text:
        level += (character in "([{") - (character in ")]}")
        deepest = max(deepest, level)
    if deepest > MAX_BRACKETS:
        return "too deep"
    if not balanced(text):
        return "unbalanced"
    if re.search(rf"\d{{{MAX_DIGITS}}}", text):
        return "too many digits"
    if any(text.count(sign) > most for sign, most in _MOST.items()):
        return "too many roots, cells or integrals"
    return next((name for name, pattern in _PATTERNS.items() if pattern.search(text)), "")
