"""The units that an answer may carry: physical units with their sizes, currencies, and what people count.

A word that is not here is no unit, except for a plural noun ("72 clips"), as nobody can list those.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

Dimension = tuple[tuple[str, int], ...]
"""Powers of base dimensions, sorted by name: a speed is (("length", 1), ("time", -1))."""
Unit = tuple[Dimension, Fraction]
"""A dimension and the size in its base unit."""

_PREFIX_NAMES = "pico:-12 nano:-9 micro:-6 milli:-3 centi:-2 deci:-1 kilo:3 mega:6 giga:9 tera:12"
_PREFIX_SIGNS = "p:-12 n:-9 μ:-6 u:-6 m:-3 c:-2 d:-1 k:3 M:6 G:9 T:12"
# sign | names | base dimensions | size in metres, grams, seconds, amperes, kelvins, moles
_PREFIXED = """
m   | meter metre           | length              | 1
g   | gram gramme           | mass                | 1
s   | second                | time                | 1
A   | ampere amp            | current             | 1
K   | kelvin                | temperature         | 1
mol | mole                  | amount              | 1
N   | newton                | length mass time-2  | 1000
J   | joule                 | length2 mass time-2 | 1000
W   | watt                  | length2 mass time-3 | 1000
Pa  | pascal                | length-1 mass time-2 | 1000
Hz  | hertz                 | time-1              | 1
C   | coulomb               | current time        | 1
V   | volt                  | length2 mass time-3 current-1 | 1000
F   | farad                 | length-2 mass-1 time4 current2 | 0.001
Ω   | ohm                   | length2 mass time-3 current-2 | 1000
T   | tesla                 | mass time-2 current-1 | 1000
Wb  | weber                 | length2 mass time-2 current-1 | 1000
H   | henry henrie          | length2 mass time-2 current-2 | 1000
eV  | electronvolt          | length2 mass time-2 | 1.602176634e-16
cal | calorie               | length2 mass time-2 | 4184
L   | liter litre           | length3             | 0.001
l   |                       | length3             | 0.001
pc  | parsec                | length              | 3.0856775814913673e16
Wh  |                       | length2 mass time-2 | 3600000
Ah  |                       | current time        | 3600
bar |                       | length-1 mass time-2 | 1e8
"""
_PLAIN = """
in inch inche "         | length | 0.0254
ft foot feet            | length | 0.3048
yd yard                 | length | 0.9144
mi mile                 | length | 1609.344
Å angstrom ångström     | length | 1e-10
au                      | length | 149597870700
ly light-year lightyear | length | 9460730472580800
micron                  | length | 1e-6
lb lbs pound            | mass   | 453.59237
oz ounce                | mass   | 28.349523125
t ton tonne             | mass   | 1000000
amu                     | mass   | 1.66053906660e-24
sec                     | time   | 1
min minute              | time   | 60
h hr hrs hour           | time   | 3600
d day                   | time   | 86400
wk week                 | time   | 604800
month                   | month  | 1
yr yrs year             | month  | 12
decade                  | month  | 120
century centurie        | month  | 1200
acre                    | length2 | 4046.8564224
ha hectare              | length2 | 10000
cc                      | length3 | 1e-6
gal gallon              | length3 | 0.003785411784
qt quart                | length3 | 0.000946352946
pt pint                 | length3 | 0.000473176473
cup                     | length3 | 0.0002365882365
tbsp tablespoon         | length3 | 0.00001478676478125
tsp teaspoon            | length3 | 0.00000492892159375
mph                     | length time-1 | 0.44704
kph kmh                 | length time-1 | 1/3.6
knot                    | length time-1 | 1852/3600
erg                     | length2 mass time-2 | 0.0001
dyn dyne                | length mass time-2 | 0.01
atm atmosphere          | length-1 mass time-2 | 101325000
torr mmHg               | length-1 mass time-2 | 133322.368
hp horsepower           | length2 mass time-3 | 745699.872
rpm                     | turn time-1 | 1/60
rev revolution turn     | turn   | 1
deg degree              | angle  | 1
arcmin arcminute        | angle  | 1/60
arcsec arcsecond        | angle  | 1/3600
celsius                 | celsius | 1
fahrenheit              | fahrenheit | 1
rad radian              | radian | 1
sr steradian            | steradian | 1
bit                     | bit    | 1
byte                    | bit    | 8
lx lux                  | lux    | 1
lm lumen                | lumen  | 1
cd candela              | candela | 1
$ usd dollar buck       | dollar | 1
¢ cent                  | dollar | 0.01
€ eur euro              | euro   | 1
£ gbp                   | sterling | 1
¥ yen jpy yuan cny rmb 元 円 圓 块 | yuan or yen | 1
₹ inr rupee rs          | rupee  | 1
₩ won krw               | won    | 1
peso franc krona ruble  | other currency | 1
米 | length | 1
厘米 公分 | length | 0.01
毫米 | length | 0.001
分米 | length | 0.1
千米 公里 | length | 1000
平方米 | length2 | 1
平方厘米 | length2 | 0.0001
平方千米 平方公里 | length2 | 1000000
立方米 | length3 | 1
立方厘米 | length3 | 0.000001
克 | mass | 1
千克 公斤 | mass | 1000
吨 | mass | 1000000
升 | length3 | 0.001
毫升 | length3 | 0.000001
秒 | time | 1
分钟 分鐘 分 | time | 60
小时 小時 時間 时 | time | 3600
天 日 | time | 86400
周 週 | time | 604800
月 个月 | month | 1
年 岁 歳 | month | 12
度 | angle | 1
"""
_COUNTED = (
    # irregular plurals, and what is counted in the singular
    "people person persons men man women woman children child feet teeth mice geese fish sheep deer dice oxen"
    " cattle folk staff crew fruit bread candy money water rice flour sugar milk homework furniture clothing"
    " piece pieces each total item apple egg book box bag pair pairs set sets point student boy girl"
    " way ball coin page seat car ticket problem question unit vertex vertices index indices matrix matrices"
    " axis axes edge side face solution dog cat bird flower tree house room row column card pen pencil bottle"
    " glass class bus gas dress kiss grass boss pass loss toss guess chess address process success"
    # measure words
    " 个 個 名 人 只 隻 条 件 本 支 枝 张 枚 页 辆 台 次 回 种 种类 位 颗 朵 棵 匹"
    " 头 座 间 套 份 双 对 层 级 개 명 원 번 마리 권"
)
COUNTED = frozenset(_COUNTED.split())
"""Nouns that count something, beyond the plurals in -s."""
_TRAILING_TEXT = (
    "old each total in altogether left remaining overall all long tall high wide deep away apart ago"
    " away exactly only again together"
)
TRAILING = frozenset(_TRAILING_TEXT.split())
"""Words behind a counted noun that change nothing: `12 years old`, `18 in total`."""


def _dimension(text: str) -> Dimension:
    powers: dict[str, int] = {}
    for word in text.split():
        name = word.rstrip("-0123456789")
        powers[name] = powers.get(name, 0) + int(word[len(name) :] or 1)
    return tuple(sorted(powers.items()))


def _size(text: str) -> Fraction:
    top, _, bottom = text.strip().partition("/")
    return Fraction(top) / Fraction(bottom or 1)


def _tables() -> tuple[dict[str, Unit], dict[str, Unit]]:
    """Returns the units by their signs, whose case matters, and by their names in lower case."""
    signs: dict[str, Unit] = {}
    names: dict[str, Unit] = {}
    for line in _PLAIN.strip().splitlines():
        words, dimension, size = line.split("|")
        unit = (_dimension(dimension), _size(size))
        for word in words.split():
            signs[word] = names[word.casefold()] = unit
    for line in _PREFIXED.strip().splitlines():
        sign, words, dimension, size = (part.strip() for part in line.split("|"))
        unit = (_dimension(dimension), _size(size))
        signs.setdefault(sign, unit)
        for prefix in _PREFIX_SIGNS.split():
            letter, power = prefix.split(":")
            signs.setdefault(letter + sign, (unit[0], unit[1] * Fraction(10) ** int(power)))
        for name in words.split():
            names.setdefault(name, unit)
            for prefix in _PREFIX_NAMES.split():
                word, power = prefix.split(":")
                names.setdefault(word + name, (unit[0], unit[1] * Fraction(10) ** int(power)))
    return signs, names


_SIGNS, _NAMES = _tables()
_LOWER_SIGNS = {sign.casefold(): unit for sign, unit in reversed(_SIGNS.items()) if len(sign) > 1}
_UNMARKED_TEXT = (
    "mm cm dm km mg kg ml mL kL in ft yd mi lb lbs oz min hr hrs sec ms mph kph kmh kW kJ kN kV kA kPa"
    " Pa Hz kHz MHz GHz MW MJ MPa MN eV keV MeV GeV kcal cal mol atm bar rpm hp gal qt pt cc usd USD EUR"
    " GBP JPY CNY INR tbsp tsp deg rad erg cm mW GW yr yrs wk sq cu torr mmHg dyn amu kWh Wh mAh Ah"
)
UNMARKED = frozenset(_UNMARKED_TEXT.split())
"""Signs that are units without any markup; other short words may be products of variables (`5 nm`)."""


@lru_cache(maxsize=5000)
def physical(word: str) -> Unit | None:
    """Returns a unit by its sign or name, in any number and, where signs allow it, any case."""
    if word in _SIGNS:
        return _SIGNS[word]
    lower = word.casefold()
    for name in (lower, lower[:-1] if lower.endswith("s") and len(lower) > 3 else lower):
        if name in _NAMES:
            return _NAMES[name]
    return _LOWER_SIGNS.get(lower) if len(lower) > 1 else None
