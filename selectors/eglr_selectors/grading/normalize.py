r"""One spelling for what can be written in many: Unicode signs, LaTeX synonyms, spacing, thousands marks.

The result is still LaTeX. Afterwards ``$`` means dollars, ``\text{...}`` marks every kind of upright words,
and only ``\frac``, ``\le``, ``*`` and so on occur of their many synonyms.
"""

from __future__ import annotations

import re
import unicodedata

from eglr_selectors.grading.boxes import unboxed

_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi"
    " chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
)
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ", _GREEK_NAMES.split(), strict=True))
_SIGNS = (
    dict.fromkeys("−–—‐‑﹣－", "-")
    | dict.fromkeys("×⋅·∙∗", "*")
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff", "")
    | dict.fromkeys("\u00a0\u2009\u202f\u2007", " ")
    | {"÷": "/", "∕": "/", "⁄": "/", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne "}
    | {"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp "}
    | {"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}"}
    | {"°": r"^\circ ", "º": r"^\circ "}
    | {"⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil "}
    | {"⟨": r"\langle ", "⟩": r"\rangle ", "∠": r"\angle ", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}"}
    | {"⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "…": r"\dots ", "′": "'", "″": '"'}
    | {
        "、": ",",
        "，": ",",
        "。": ".",
        "或": " or ",
        "和": " and ",
        "与": " and ",
        "及": " and ",
        "と": " and ",
    }
    | {"≈": r"\approx ", "≡": r"\equiv ", "⇒": r"\Rightarrow ", "→": r"\to ", "∴": "", "’": "'"}
    | {letter: rf"\{name} " for letter, name in _GREEK.items()}
)
_SIGN_TABLE = str.maketrans(_SIGNS)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ", "0123456789-n")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ]+")
_MICRO = re.compile(r"[µμ](m|s|g|F|A|H|V|W|C|L|l|N|J|mol)(?![A-Za-z])")
_SQUARE_UNIT = re.compile(r"(?<![A-Za-z\\{])(mm|cm|dm|km|m|ft|in|yd)(?=[²³])")
_ROOT_SIGN = re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-z]|\([^()]*\))")

_NOTHING = (
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits"
    " nolimits rm bf it mathstrut hfill newline underline large Large LARGE huge small normalsize checkmark"
    " therefore"
)
_UPRIGHT = (
    "text mathrm mathbf mathit mathsf mathtt textbf textit textrm textsf texttt textnormal mbox hbox emph"
    " operatorname mathop boldsymbol bm textup mathnormal"
)
_ONE_LETTER = re.compile(
    r"\\(mathbf|boldsymbol|bm|textbf|mathit|textit|mathsf|hat|vec|mathrm|text|operatorname|textrm|mathnormal)"
    r"\s*\{\s*(\\imath|\\jmath|[A-Za-z])\s*\}"
)
_BOLD = frozenset(["mathbf", "boldsymbol", "bm", "textbf", "hat", "vec"])
_ITALIC = frozenset(["mathit", "textit", "mathsf", "mathnormal"])
_UPRIGHT_NAMES = frozenset("eid")
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
    | {
        "lbrack": "[",
        "rbrack": "]",
        "lparen": "(",
        "rparen": ")",
        "textdollar": "$",
        "AA": "Å ",
        "euro": "€",
        "texteuro": "€",
        "yen": "¥",
        "pounds": "£",
    }
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
_SPACED_BEFORE = re.compile(r"\d{1,3}(?: \d{3})+(?= \d+/\d+$|\s*(?:\\text|[A-Za-z$£€¥%]))")
_APOSTROPHES = re.compile(r"(?<![\w'])\d{1,3}(?:'\d{3})+(?![\d'])")
_FOREVER = re.compile(r"(?<![\d.,])(\d*)\.(\d{1,60})\s*(?:\.{3,}|\\[lc]?dots[cb]?(?![A-Za-z])|\\dotso)")
_PERIOD = re.compile(r"(?<![\d.,])(\d*)\.(\d{0,60})\((\d{1,60})\)$")
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
        text = _MICRO.sub(r"\\mu\\text{\1}", text)
        text = _SQUARE_UNIT.sub(r"\\text{\1}", text)
        text = _RAISED.sub(lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text)
        text = _ROOT_SIGN.sub(lambda root: rf"\sqrt{{{root[1].strip('()')}}}", text)
        text = unicodedata.normalize("NFKC", text.translate(_SIGN_TABLE)).translate(_SIGN_TABLE)
    if "box" in text:
        text = unboxed(text)
    text = _DECORATION.sub("", text)
    text = _ONE_LETTER.sub(_letter, text)
    text = _THOUSANDS.sub("", text)
    if "." in text:
        text = _PERIOD.sub(r"\1.\2\\overline{\3}", _FOREVER.sub(_repeating, text))
    if "'" in text:
        text = _APOSTROPHES.sub(lambda number: number[0].replace("'", ""), text)
    if markup := _MARKUP.fullmatch(text):
        text = markup[2]
    # A dollar sign is a delimiter unless it is escaped, or names a currency.
    text = re.sub(r"\b(?:US|C|A)\\?\$(?=\s*[\d.])", r"\\$", text)
    text = re.sub(r"(?<!\\)\$", "", text).replace("~", " ").replace("**", "^")
    text = _COMMAND.sub(_one_name, text)
    text = _CIRCLE.sub(r"^\\circ ", text)
    text = _TIMES_TEN.sub("*", text)
    text = _SPACES.sub(" ", text).strip(" =").rstrip(".,;").strip()
    if _SPACED_THOUSANDS.fullmatch(text):
        text = text.replace(" ", "")
    elif spaced := _SPACED_BEFORE.match(text):
        text = spaced[0].replace(" ", "") + text[spaced.end() :]
    return text


def _letter(upright: re.Match[str]) -> str:
    r"""One letter in another type: \mathbf{i} is a unit vector, \mathrm{i} the imaginary unit.

    Other upright letters stay marked, as they may be units; bold and italic ones are plain names.
    """
    command, letter = upright[1], upright[2].removeprefix("\\")[0]
    if command in _BOLD and letter in "ijk":
        return rf"\vec {{{letter}}}"
    if command in ("hat", "vec"):
        return upright[0]
    if (
        command in _BOLD
        or command in ("mathit", "textit", "mathsf", "mathnormal")
        or letter in _UPRIGHT_NAMES
    ):
        return f" {letter} "
    return upright[0]


def _repeating(decimals: re.Match[str]) -> str:
    """0.1666... is 0.1 and sixes for ever; dots after digits that do not repeat stay as they are."""
    digits = decimals[2]
    for start in range(len(digits)):
        tail = digits[start:]
        for length in range(1, len(tail) // 2 + 1):
            often = -(-len(tail) // length)
            if (tail[:length] * often)[: len(tail)] == tail and (length > 1 or len(tail) > 2 or start == 0):
                return rf"{decimals[1]}.{digits[:start]}\overline{{{tail[:length]}}}"
    return decimals[0]


def _one_name(command: re.Match[str]) -> str:
    name, escape = command[1], command[2]
    if name is None:
        return _ESCAPES.get(escape, escape)
    # \left. stands for no bracket at all; after any other command the dot is a dot.
    dot = "." if command[0].endswith(".") and name not in ("left", "right") else ""
    known = _COMMANDS.get(name)
    return (rf"\{name} " if known is None else known) + dot
