"""Golds with one symbol, word, sign or digit changed, so that they say something else."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from respellings import exact

DIGIT = re.compile(r"\d")
SIGN = re.compile(r"(?<![\^_{(])[+-]|\\pm|\\le(?![a-z])|\\ge(?![a-z])|<|>|\\cup|\\cap|\\subset|\\in(?![a-z])")
OTHER_SIGN = dict(
    zip(
        ("+", "-", r"\pm", r"\le", r"\ge", "<", ">", r"\cup", r"\cap", r"\subset", r"\in"),
        ("-", "+", "+", r"\ge", r"\le", ">", "<", r"\cap", r"\cup", r"\supset", r"\notin"),
        strict=True,
    )
)
LETTER = re.compile(r"(?<![A-Za-z\\{])[a-zA-Z](?![A-Za-z}])")
COMMAND = re.compile(r"\\(sin|cos|tan|ln|pi|sqrt|theta|alpha|lambda|omega|frac|infty)(?![a-z])")
_COMMANDS = (
    "sin:tan cos:tan tan:sin ln:exp pi:theta sqrt:ln theta:phi alpha:beta lambda:mu omega:rho"
    " frac:binom infty:pi"
)
OTHER_COMMAND = dict(pair.split(":") for pair in _COMMANDS.split())
WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}(?![A-Za-z])")
_APPENDED = (
    "million|thousand|hundred|dozen|squared|cubed|factorial|minus one|plus two|halves|thirds|tenths"
    "|below zero|theta|wrong|or 9|times three|not|negative|x|!|%%|mod 3|i|^2|_3"
)
APPENDED = _APPENDED.split("|")


def changes(gold: str, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Yields one change of each sort that the gold allows, with the name of the sort."""
    sorts: dict[str, Callable[[str, random.Random], str | None]] = {
        "digit": _digit,
        "sign": _sign,
        "letter": _letter,
        "command": _command,
        "word": _word,
        "appended": _appended,
    }
    for name, change in sorts.items():
        changed = change(gold, chance)
        if changed is not None and not _says_the_same(gold, changed):
            yield name, changed


def _says_the_same(gold: str, changed: str) -> bool:
    values = exact(gold), exact(changed)
    return gold == changed or (values[0] is not None and values[0] == values[1])


def _replaced(gold: str, match: re.Match[str] | None, other: str) -> str | None:
    return None if match is None else gold[: match.start()] + other + gold[match.end() :]


def _one(pattern: re.Pattern[str], gold: str, chance: random.Random) -> re.Match[str] | None:
    found = list(pattern.finditer(gold))
    return chance.choice(found) if found else None


def _digit(gold: str, chance: random.Random) -> str | None:
    match = _one(DIGIT, gold, chance)
    return match and _replaced(gold, match, str((int(match[0]) + chance.randrange(1, 9)) % 10))


def _sign(gold: str, chance: random.Random) -> str | None:
    match = _one(SIGN, gold, chance)
    if match is None or re.match(r"\s*0(?![\d.])", gold[match.end() :]):
        return None if match else (f"-{gold}" if exact(gold) else None)
    return _replaced(gold, match, OTHER_SIGN[match[0]])


def _letter(gold: str, chance: random.Random) -> str | None:
    if "text" in gold or WORD.search(gold):
        return None
    match = _one(LETTER, gold, chance)
    unused = [letter for letter in "wvhqzkK" if letter not in gold]
    return match and _replaced(gold, match, chance.choice(unused)) if unused else None


def _command(gold: str, chance: random.Random) -> str | None:
    match = _one(COMMAND, gold, chance)
    return match and _replaced(gold, match, f"\\{OTHER_COMMAND[match[1]]}")


def _word(gold: str, chance: random.Random) -> str | None:
    match = _one(WORD, gold, chance)
    return _replaced(gold, match, chance.choice(["purple", "seventy", "circle", "miles", "Oscar", "never"]))


def _appended(gold: str, chance: random.Random) -> str | None:
    word = chance.choice(APPENDED)
    if exact(gold) is None and word in ("x", "i", "!", "%%", "_3", "^2"):
        return None
    if "(" in gold and "text" in gold:
        word = "or 9"  # what stands behind a choice letter may be what the choice says
    if re.search(r"(?<![\d.])[012]$", gold) or (exact(gold) == 2 and word == "!"):
        return None
    return f"{gold} {word}" if word[0].isalpha() else f"{gold}{word}"
