r"""One spelling for what can be written in many: Unicode signs, LaTeX synonyms, spacing, thousands marks.

The result is still LaTeX. Afterwards ``$`` means dollars, ``\text{...}`` marks every kind of upright words,
and only ``\frac``, ``\le``, ``*`` and so on occur of their many synonyms.
"""

from __future__ import annotations

import re
import unicodedata

from eglr_selectors.grading.answer import unboxed

_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi"
    " chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
)
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ", _GREEK_NAMES.split(), strict=True))
_SIGNS = (
    dict.fromkeys("−–—‐‑﹣－", "-")
    | dict.fromkeys("×⋅·∙∗", "*")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\x00", "")
    | dict.fromkeys("\u00a0\u2009\u202f\u2007", " ")
    | {"÷": "/", "∕": "/", "⁄": "/", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne "}
    | {"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp "}
    | {"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}"}
    | {"°": r"^\circ ", "º": r"^\circ "}
    | {"⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil "}
    | {"⟨": r"\langle ", "⟩": r"\rangle ", "∠": r"\angle ", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}"}
    | {"⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "…": r"\dots ", "′": "'"}
    | {letter: rf"\{name} " for letter, name in _GREEK.items()}
)
_SIGN_TABLE = str.maketrans(_SIGNS)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ", "0123456789-n")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ]+")
_ROOT_SIGN = re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-z]|\([^()]*\))")

_NOTHING = (
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits"
    " nolimits rm bf it mathstrut hfill newline underline large Large LARGE huge small normalsize checkmark"
    " therefore"
)
_UPRIGHT = (
    "text mathrm mathbf mathit mathsf mathtt textbf textit textrm textsf texttt textnormal mbox hbox emph"
    " operatorname mathop boldsymbol bm"
)
_COMMANDS = (
    dict.fromkeys(_NOTHING.split(), "")
    | dict.fromkeys(_UPRIGHT.split(), r"\text")
    | dict.fromkeys(["dfrac", "tfrac", "cfrac", "sfrac", "nicefrac"], r"\frac ")
    | dict.fromkeys(["dbinom", "tbinom"], r"\binom ")
    | dict.fromkeys(["leq", "leqslant", "le"], r"\le ")
    | dict.fromkeys(["geq", "geqslant", "ge"], r"\ge ")
    | dict.fromkeys(["neq", "ne"], r"\ne ")
    | dict.fromkeys(["varnothing", "emptyset"], r"\emptyset ")
    | dict.fromkeys(["times", "cdot", "ast", "bullet"], "*")
    | dict.fromkeys(["quad", "qquad", "thinspace", "space", "enspace", "nbsp"], " ")
    | dict.fromkeys(["ldots", "cdots", "dotsc", "dots", "dotsb"], r"\dots ")
    | dict.fromkeys(["lvert", "rvert", "vert", "mid"], "|")
    | {"lt": "<", "gt": ">", "div": "/", "colon": ":", "degree": r"^\circ ", "lbrace": r"\{", "rbrace": r"\}"}
    | {"lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "textdollar": "$", "pounds": "£"}
    | {"implies": r"\Rightarrow ", "to": r"\to ", "varepsilon": r"\epsilon ", "varphi": r"\phi "}
)
_ESCAPES = (
    dict.fromkeys("!()[]", "")
    | dict.fromkeys(",;:> \n\t", " ")
    | {"$": "$", "%": "%", "&": " and ", "#": "#", "_": "_", "{": r"\{", "}": r"\}", "\\": r"\\", "|": "|"}
)
_COMMAND = re.compile(r"\\(?:([A-Za-z]+)(?:\*(?=\{))?\.?|(.))", re.DOTALL)
_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!\s*|\{,\}\s*|\\,)(?=\d{3}(?!\d))")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?![\d])(?:\.\d+)?")
_MARKUP = re.compile(r"\s*(\*\*|`+|__)([^*`]+)\1\s*\.?\s*")
_DECORATION = re.compile(
    r"\\(?:text)?color\s*\{[^{}]*\}|\\[hv]?(?:space|phantom)\*?\s*\{[^{}]*\}|\\text\s*\{[\s.,;]*\}|\\\\\s*$"
    r"|^\s*(?:\\text\s*\{)?\s*(?:the\s+)?(?:final\s+)?answer(?:\s+is\b|\s*:)[\s:]*\}?",
    re.IGNORECASE,
)
_TIMES_TEN = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)")
_SPACES = re.compile(r"\s+")
_CIRCLE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)")


def normalize(text: str) -> str:
    """Returns the text in the one spelling, blanks at most one in a row, outer ones and full stops gone."""
    if not text.isascii():
        text = _RAISED.sub(lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text)
        text = _ROOT_SIGN.sub(lambda root: rf"\sqrt{{{root[1].strip('()')}}}", text)
        text = unicodedata.normalize("NFKC", text.translate(_SIGN_TABLE)).translate(_SIGN_TABLE)
    else:
        text = text.replace("\x00", "")
    if "box" in text:
        text = unboxed(text)
    text = _DECORATION.sub("", text)
    text = _THOUSANDS.sub("", text)
    if markup := _MARKUP.fullmatch(text):
        text = markup[2]
    # A dollar sign is a delimiter unless it is escaped.
    text = re.sub(r"(?<!\\)\$", "", text).replace("~", " ").replace("**", "^")
    text = _COMMAND.sub(_one_name, text)
    text = _CIRCLE.sub(r"^\\circ ", text)
    text = _TIMES_TEN.sub("*", text)
    text = _SPACES.sub(" ", text).strip(" =").rstrip(".,;").strip()
    if _SPACED_THOUSANDS.fullmatch(text):
        text = text.replace(" ", "")
    return text


def _one_name(command: re.Match[str]) -> str:
    name, escape = command[1], command[2]
    if name is None:
        return _ESCAPES.get(escape, escape)
    # \left. stands for no bracket at all; after any other command the dot is a dot.
    dot = "." if command[0].endswith(".") and name not in ("left", "right") else ""
    known = _COMMANDS.get(name)
    return (rf"\{name} " if known is None else known) + dot
