"""Answers that stand in no box: a `####` line, "the answer is", or the last number of the text."""

from __future__ import annotations

import re
from collections.abc import Callable

_TAIL = 4000
"""A fallback reads only so many last characters: an answer stated earlier is not the final one."""
_MOST_STATED = 20
"""Of the last labels that are looked at for a value."""
_LONGEST = 600
"""Characters behind a label."""
_END_TOKENS = re.compile(r"<<[^<>]*>>|</s>|<\|[^|<>\n]{1,30}\|>|<eos>|<pad>|<end_of_turn>|\[/?INST\]")
_HASH = re.compile(r"####[ \t]*([^\n]*)")
_HEADING = re.compile(
    r"(?:step|part|explanation|solution|check|verification|note|reasoning|conclusion|summary|case|method|problem"
    r"|question|calculation)\b|\d+[.):]\s+[A-Za-z]",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[\s#*_>`]*(?:the\s+)?(?:final\s+|correct\s+)?answer[\s*_`:：]*", re.IGNORECASE)
_BARE_LABEL = re.compile(r"^(?:the\s+)?(?:final\s+)?answer\s+(?=\S*\d)", re.IGNORECASE)
_IS = r"(?:is|was|are|equals|should\s+be|would\s+be|must\s+be|will\s+be|comes\s+(?:out\s+)?to|=)"
_STATED = re.compile(
    rf"<answer>|(?<![A-Za-z])answer(?![A-Za-z])[*_`\"]*"
    rf"(?:\s+{_IS}(?!\s+not\b)[:：]?|\s*[:：=]|\s+[–—-]{{1,3}}(?=\s))"
    r"|(?<![A-Za-z])ans(?:wer)?\s*[:：=]"
    r"|(?:^|\n)[ \t#*_>]*(?:the\s+)?(?:final\s+|correct\s+)?answer[ \t*_:]*(?=\n)"
    # other languages
    r"|(?:答案|答え|正解|解答|结果|結果|得数)\s*(?:应该|應該)?(?:是|为|為|は|：|:)+|答\s*[：:]"
    r"|(?:정답|답)\s*(?:은|는|이|:|：)"
    r"|\b(?:respuesta|resposta|risposta|r[ée]ponse|antwort|antwoord|ответ|odpowied[źz]|cevap|đáp\s+án)\b"
    r"(?:\s+(?:final|finale|correcta|correta|corretta|correcte|lautet|est|es|é|è|ist|is|to|là|endgültige)(?!\w))*"
    r"\s*[:：]?",
    re.IGNORECASE,
)
_SKIPPED = re.compile(r"[\s:：*_`>\"]+")
_HEDGES = re.compile(
    r"(?:exactly|about|approximately|roughly|around|only|just|simply|therefore|thus|then|found to be)\s+"
    r"(?=\S*\d)",
    re.IGNORECASE,
)
_SAID = re.compile(r"[^\d\n.]*\b(?:is|are|was|equals)\s+(?=\S*\d)")
_FENCE = re.compile(r"```\w*\n")
_SPAN = re.compile(r"\$\$?([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_PROSE = re.compile(r"\s[a-z]+\s+[a-z]+\s")
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = (
    rf"[-+−]?\s?(?:[$€£]\s?)?[-−]?(?:\d+\s+\d+\s*/\s*\d+|(?:{_PLAIN})(?:\s*/\s*\d+|[eE][-+]?\d+)?)(?:\s?%)?"
)
_MAGNITUDE = r"(?:\s*(?:hundred|thousand|million|billion|trillion|dozen|[百千万亿億萬])\b|\s*[百千万亿億萬])"
_LIST = re.compile(rf"{_NUMBER}(?:\s*,\s*(?:and\s+)?{_NUMBER}|\s+and\s+{_NUMBER})+(?=\s*(?:[.!\n]|$))")
_QUANTITY = re.compile(rf"({_NUMBER}{_MAGNITUDE}*)(.*)", re.DOTALL)
_GOES_ON = re.compile(
    r"\s*(?:[+*/=^×÷·]|x\s*\d|[-−–]\s*\d|\\[a-z]|,?\s*(?:or|maybe|perhaps|possibly)\b|(?:to|through)\s+\d)"
)
_STOPS = (
    "in for from after before because since which where so not with by on at when if as of while and but"
    " that to each rather instead every altogether total all who he she they we it is are was were too also"
    " out"
)
_UNIT = re.compile(
    rf"((?:[ \t]+(?!(?:{'|'.join(_STOPS.split())})\b)[A-Za-z°][A-Za-z°²³/'-]*|[A-Za-z°²³/]+){{0,3}})"
)
_SENTENCE_END = re.compile(
    r"\n|[.!](?=\s|$)|;|</|。|\*\*|`|\s+[–—-]\s|\s*\((?=[^()]*\s)|\s+(?:because|since|which|where|so)\b"
    r"|,\s+(?!and\b|or\b)[a-z]{2,}|,?\s+(?:and\s+)?not\b"
)
_CHUNK = re.compile(r"\S*\d\S*")
_WHOLE_NUMBER = re.compile(
    rf"[-−+]?[$€£]?[-−]?(?:{_PLAIN})(?:/\d+|[eE][-+]?\d+)?%?|\d+(?:,\d+)+|\d+(?:\^\{{?-?\d+\}}?)|\d{{1,2}}:\d\d"
)
_WITH_UNIT = re.compile(rf"([-−]?[$€£]?(?:{_PLAIN}))(?:[A-Za-z]{{1,4}}|/[A-Za-z]+)")
_INSIDE = re.compile(r"(?<![\w.^_/:,])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w^_/:])")


def by_hash(text: str) -> str:
    """The last line after ``####`` that is no heading; a label there may have its answer on the next line."""
    for line in reversed(list(_HASH.finditer(text))):
        content = line[1].strip(" \t*_`")
        if _LABEL.fullmatch(content):
            content = text[line.end() : line.end() + _LONGEST].strip()
        elif label := _STATED.search(content):
            content = content[label.end() :]
        content = _BARE_LABEL.sub("", content)
        if content and not _HEADING.match(content) and (found := _stated_value(content)):
            return found
    return ""


def by_phrase(text: str) -> str:
    """What stands behind the last "answer is", "**Answer**:" or its like in other languages.

    A sentence that says no value ("I hope the answer is helpful") does not count if another one does.
    """
    words = ""
    for match in list(_STATED.finditer(text))[: -_MOST_STATED - 1 : -1]:
        found = _stated_value(text[match.end() : match.end() + _LONGEST])
        if re.search(r"\d|\\|^\(?[A-J]\)?$", found):
            return found
        words = words or found
    return words


def _stated_value(text: str) -> str:
    """Cuts a value out of the text that follows a label: what is said about it is no part of it."""
    text = _FENCE.sub("", text, count=1) if text.lstrip(" *_\n").startswith("```") else text
    bold = text.lstrip(" \t\n:：")
    start = _SKIPPED.match(text)
    rest = text[start.end() :] if start else text
    rest = _HEDGES.sub("", rest)
    if (span := _SPAN.match(rest)) and not _PROSE.search(span[0]):
        return next(group for group in span.groups() if group is not None).strip()
    mark = next((mark for mark in ("**", "*", "__", "`") if bold.startswith(mark)), "")
    if mark and (end := rest.find(mark)) > 0 and "\n" not in rest[:end]:
        rest = rest[:end]
    if said := _SAID.match(rest):  # Answer: the total is 45.
        rest = rest[said.end() :]
    if several := _LIST.match(rest):
        return several[0].strip()
    quantity = _QUANTITY.match(rest)
    if quantity and not _GOES_ON.match(quantity[2]):
        behind = quantity[2]
        if re.match(r"[A-Za-z_^{\\(]", behind) and not re.match(r"[A-Za-z]{2,}\b|</|°", behind):
            return _SENTENCE_END.split(rest, maxsplit=1)[0].strip(" *$_")
        unit = _UNIT.match(behind)
        return (quantity[1] + (unit[1] if unit else "")).rstrip(" *$_-")
    return _SENTENCE_END.split(rest, maxsplit=1)[0].strip(' *$_"').rstrip(".,")


def by_last_number(text: str) -> str:
    """The last number, with what makes it one value: 3/4, 2 1/2, 1.5e3, 10^6.

    Digits of a name (x_5) are no number; several numbers in a row (1,2,3) are returned as they are.
    """
    chunks = list(_CHUNK.finditer(text))
    for place in range(len(chunks) - 1, -1, -1):
        chunk = chunks[place][0].strip("()[]{}*`'\"“”~<>").rstrip(".,;:!?)]}*`'\"").lstrip("([{*`'\"")
        chunk = chunk.rsplit("=", 1)[-1].replace("\\$", "").strip("*$`() ")
        if not any(map(str.isdigit, chunk)):
            continue
        if re.fullmatch(r"\d+/\d+", chunk) and place and re.fullmatch(r"-?\d+", chunks[place - 1][0]):
            between = text[chunks[place - 1].end() : chunks[place].start()]
            if between.strip() == "" and "\n" not in between:
                return f"{chunks[place - 1][0]} {chunk}"
        if _WHOLE_NUMBER.fullmatch(chunk):
            return chunk.lstrip("+").replace("$", "")
        if unit := _WITH_UNIT.fullmatch(chunk):
            return unit[1].replace("$", "")
        if inside := _INSIDE.findall(chunk):
            return str(inside[-1])
    return ""


def _line_end(token: re.Match[str]) -> str:
    """Nothing of what follows an end token belongs to its line; <<3*4=12>> is a calculator's note."""
    return "" if token[0].startswith("<<") else "\n"


FALLBACKS: dict[str, Callable[[str], str]] = {
    "hash": by_hash,
    "phrase": by_phrase,
    "last_number": by_last_number,
}


def fallback_answer(text: str, name: str) -> str:
    """Returns what a fallback finds; empty for nothing."""
    return FALLBACKS[name](_END_TOKENS.sub(_line_end, text[-_TAIL:])).strip()
