"""What stands around an answer and does not change it: arrows, labels, conditions, remarks in brackets.

A remark that does change the answer, denies it or names another one (`(or 6)`, `(rejected)`, `(million)`)
is no remark: the text as a whole is then refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eglr_selectors.grading.formula_tokens import FUNCTIONS
from eglr_selectors.grading.number_words import CHANGING
from eglr_selectors.grading.splitting import masked_text, split

_ARROWS = r"\\(?:[Ll]ong)?[Rr]ightarrow\b|\\to\b|\\approx\b|\\simeq\b|\\sim\b|\\because\b|->|=>|=|:"
_FRONT_WORDS = (
    "therefore|thus|hence|so|then|approximately|about|exactly|roughly|around|nearly|precisely|equals|it is"
    "|we get|we have|that is|equal to"
)
_FRONT = re.compile(rf"\s*(?:{_ARROWS}|(?:\\text\s*\{{\s*)?(?i:{_FRONT_WORDS})\b\s*[,:]?\s*\}}?)\s*(?=\S)")
_LABEL = re.compile(r"(?:\\text\s*\{\s*)?([A-Za-z][A-Za-z ]{2,40}?)\s*:\s*(\})?\s*(\S.*)", re.DOTALL)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_OPEN_TEXT = re.compile(r"(?:\\text\s*\{[\s,;]*)+$")
_CONDITION = re.compile(
    r"(?:^|(?<=[\s,;)}\d]))(?:where|for\s+(?:all|every|any|each|some)|for|with|since|because|as|given|assuming"
    r"|provided|such\s+that)(?=\s)"
)
_DOMAIN = re.compile(
    r"\s*(\\?[A-Za-z]+(?:\s*,\s*\\?[A-Za-z]+)*)\s*(?:\\in\b|\\ge\b|\\le\b|\\ne\b|[<>])\s*\S.*", re.DOTALL
)
_RELATION = re.compile(r"\\in\b|\\ge\b|\\le\b|\\ne\b|[<>]")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2,}")
_DENIALS_TEXT = (
    "or also another alternatively not no nor never but either neither maybe wrong incorrect false invalid"
    " impossible rejected extraneous undefined discarded discard reject unless except without"
)
_DENIALS = frozenset(_DENIALS_TEXT.split())


@dataclass(frozen=True, slots=True)
class Remark:
    """A text taken apart.

    Attributes:
        content: What the answer says.
        condition: The condition or remark behind it; empty for none.
        in_brackets: Whether it stood in brackets.
    """

    content: str
    condition: str = ""
    in_brackets: bool = False


def without_front(text: str) -> str:
    """Takes arrows, labels and words like "approximately" off the front of a normalized text."""
    for _ in range(4):
        before = text
        if match := _FRONT.match(text):
            text = text[match.end() :]
            if match[0].count("{") > match[0].count("}") and text.endswith("}"):
                text = text[:-1].strip()  # \text{about 5}
        elif (match := _LABEL.fullmatch(text)) and _is_label(match[1]) and ":" not in match[3]:
            text = match[3]
            if match[0].startswith("\\text") and match[2] is None and text.endswith("}"):
                text = text[:-1].strip()
        if text == before:
            return text.strip()
    return text.strip()


def _is_label(words: str) -> bool:
    found = words.casefold().split()
    return any(len(word) > 3 or word == "ans" for word in found) and not any(
        word in CHANGING for word in found
    )


def taken_apart(text: str) -> Remark | None:
    """Splits a normalized text into what it says and a condition or remark behind it.

    Returns:
        The parts, with an empty condition if there is none; ``None`` if the remark denies or changes what
        stands before it.
    """
    if text.endswith((")", ")}")) and (found := _bracketed(text)) is not None:
        content, remark = found
        words = [
            word.casefold()
            for word in _WORD.findall(_COMMAND.sub(" ", _plain(remark)))
            if word not in FUNCTIONS
        ]
        if "mod" in words or "base" in words:
            return Remark(text)
        if words or _RELATION.search(remark):
            if any(word in _DENIALS for word in words):
                return None
            return Remark(content, remark, in_brackets=True)
    if " " in text or "\\" in text:
        for match in _CONDITION.finditer(masked_text(_TEXT.sub(_same_length, text))):
            content = _OPEN_TEXT.sub("", text[: match.start()]).rstrip(" ,;")
            if content.count("{") > content.count("}"):  # \text{no solution for x}
                content += "}"
            condition = _plain(text[match.start() :]).strip(" .,")
            if content and re.search(r"\bfor\b.*\bfor\b", condition):
                return Remark(text)
            if content:
                return Remark(content, condition)
    if "," in text or ";" in text:
        parts = split(text, "[,;]")
        # "k, m \in Z": the names before the relation belong to it.
        for place in range(1, len(parts)):
            behind = ",".join(parts[place:])
            before = text[: len(",".join(parts[:place]))]
            domain = _DOMAIN.fullmatch(behind)
            if domain and not _RELATION.search(before):
                names = [name.strip() for name in domain[1].split(",")]
                if all(
                    re.search(rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])", _letters(before))
                    for name in names
                ):
                    return Remark(before.strip(), behind.strip())
    return Remark(text)


def _same_length(marked: re.Match[str]) -> str:
    return " " * (marked.start(1) - marked.start()) + marked[1] + " "


def _letters(text: str) -> str:
    """Sets the letters of products apart, so that k is found in 2k\\pi and in mk."""
    return re.sub(r"\\[A-Za-z]+|[A-Za-z]", lambda match: f" {match[0]} ", text)


def _bracketed(text: str) -> tuple[str, str] | None:
    """Returns what stands before a bracket at the end of the text, and inside it."""
    end = text.rindex(")")
    level = 0
    for place in range(end, 0, -1):
        level += (text[place] == ")") - (text[place] == "(")
        if level == 0:
            before = text[:place]
            marked = _OPEN_TEXT.search(before)
            if not marked and not before.endswith((" ", "}")):
                return None
            content = before[: marked.start()] if marked else before
            if content.count("{") > content.count("}"):  # \text{no solution (why)}
                content = content.rstrip() + "}"
            content = content.strip()
            return (content, text[place + 1 : end]) if content else None
    return None


def _plain(text: str) -> str:
    return " ".join(re.sub(r"\\text\s*\{|[{}]", " ", _TEXT.sub(r" \1 ", text)).split())
