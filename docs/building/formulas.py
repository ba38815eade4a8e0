"""Formulas of the pages as MathML, so that the site needs no script and no network to set them.

A page has them as the code host shows them: a block fenced as ``math``, or ``$`...`$`` in a line.
"""

from __future__ import annotations

import re

from latex2mathml.converter import convert

BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`\n]+)`\$")


def with_formulas(markdown: str) -> str:
    """The page with every formula as HTML that a browser sets.

    Raises:
        ValueError: If a formula has a command that the converter does not know.
    """
    markdown = BLOCK.sub(lambda match: f'<div class="formula">{_mathml(match[1], "block")}</div>', markdown)
    return INLINE.sub(lambda match: _mathml(match[1], "inline"), markdown)


def _mathml(formula: str, display: str) -> str:
    made: str = convert(" ".join(formula.split()), display=display)
    unknown = re.search(r">(\\\\?[A-Za-z]+)<", made)
    if unknown:
        raise ValueError(f"{formula!r}: {unknown[1]} is not known to the converter")
    return made
