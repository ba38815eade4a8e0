"""The words of the word problems: three worlds, each with openings, events and questions."""

from __future__ import annotations

from dataclasses import dataclass

SHE = ("Ada", "Bea", "Cora", "Dora", "Emma", "Hanna", "Ines", "Kim", "Lena", "Mia", "Nora", "Rosa")
HE = ("Adam", "Ben", "Carl", "David", "Emil", "Finn", "Hugo", "Ivan", "Leo", "Max", "Omar", "Tom")
THINGS = (
    *("apples", "beads", "books", "buttons", "cards", "coins", "cookies", "eggs", "flowers", "lemons"),
    *("marbles", "nuts", "oranges", "pears", "pencils", "plums", "shells", "stamps", "stickers", "stones"),
)
HOLDERS = (("bag", "bags"), ("box", "boxes"), ("basket", "baskets"), ("jar", "jars"), ("tray", "trays"))


@dataclass(frozen=True, slots=True)
class Part:
    """An opening, an event or a question.

    Attributes:
        change: What it makes of the quantity v: ``a``, ``a*b``, ``a+b``, ``a-b`` open a story; ``v+a``,
            ``v-a``, ``v*a``, ``v/a``, ``v+a*b``, ``v-a*b`` go on with it; ``a-v`` and ``v`` only end it.
        wordings: Ways to tell it, with the numbers ``{a}`` and ``{b}``, the person ``{P}`` and the pronoun
            ``{S}`` or ``{s}``, others ``{Q}`` and ``{R}``, the things ``{O}``, their holder ``{C}`` or
            ``{Cs}``.
        working: How it is worked out, one text per operation, before the equation.
        fixed: Number that the wording says in words, as "twice" does.
    """

    change: str
    wordings: tuple[str, ...]
    working: tuple[str, ...] = ()
    fixed: int | None = None

    @property
    def operations(self) -> int:
        """How many arithmetic operations it takes."""
        return sum(self.change.count(sign) for sign in "+-*/")


@dataclass(frozen=True, slots=True)
class World:
    """What can happen to one kind of quantity."""

    name: str
    openings: tuple[Part, ...]
    events: tuple[Part, ...]
    questions: tuple[Part, ...]


COLLECTION = World(
    "collection",
    openings=(
        Part("a", ("{P} has {a} {O}.", "{P} starts with {a} {O}.", "At first {P} has {a} {O}.")),
        Part(
            "a*b",
            (
                "{P} has {a} {Cs} with {b} {O} in each.",
                "{P} has {a} {Cs}. Each {C} holds {b} {O}.",
                "There are {b} {O} in each of the {a} {Cs} of {P}.",
            ),
            ("The {Cs} hold",),
        ),
        Part(
            "a+b",
            ("{P} has {a} red {O} and {b} blue {O}.", "Of the {O} of {P}, {a} are old and {b} are new."),
            ("In all there are",),
        ),
        Part(
            "a+b",
            ("{Q} has {a} {O}. {P} has {b} more than {Q}.", "{P} has {b} {O} more than {Q}, who has {a}."),
            ("{P} has",),
        ),
        Part(
            "a-b",
            ("{Q} has {a} {O}. {P} has {b} fewer than {Q}.", "{P} has {b} {O} fewer than {Q}, who has {a}."),
            ("{P} has",),
        ),
        Part("a*b", ("{Q} has {a} {O}. {P} has {b} times as many as {Q}.",), ("{P} has",)),
        Part("a*b", ("{Q} has {a} {O}. {P} has twice as many as {Q}.",), ("{P} has",), fixed=2),
    ),
    events=(
        Part(
            "v+a",
            (
                "{S} finds {a} more.",
                "Then {s} buys another {a} {O}.",
                "{Q} gives {a} {O} to {P}.",
                "A friend brings {a} {O} more.",
            ),
            ("With the new ones",),
        ),
        Part(
            "v-a",
            (
                "{S} gives {a} {O} to {Q}.",
                "{S} loses {a} of them.",
                "Then {s} sells {a} {O}.",
                "{Q} takes {a} of the {O} away.",
            ),
            ("Without those",),
        ),
        Part(
            "v*a",
            (
                "A month later {s} has {a} times as many.",
                "Then the number of {O} grows to {a} times as many.",
            ),
            ("It grows to",),
        ),
        Part("v*a", ("Then the number of {O} doubles.",), ("It grows to",), fixed=2),
        Part(
            "v/a",
            (
                "{S} makes {a} equal piles and keeps one of them.",
                "Then {s} shares the {O} equally among {a} people and keeps one share.",
            ),
            ("One part is",),
        ),
        Part("v/a", ("{S} gives half of the {O} away.",), ("One part is",), fixed=2),
        Part(
            "v+a*b",
            ("{S} buys {a} {Cs} of {b} {O} each.", "{Q} brings {a} {Cs} with {b} {O} in each."),
            ("New are", "With the new ones"),
        ),
        Part(
            "v-a*b",
            ("{S} gives {b} {O} to each of {a} friends.", "{S} sells {a} {Cs} with {b} {O} in each."),
            ("Gone are", "Without those"),
        ),
    ),
    questions=(
        Part("v", ("How many {O} does {P} have now?", "How many {O} does {s} have in the end?")),
        Part(
            "v*a",
            ("Each one is worth {a} cents. How many cents are they all worth?",),
            ("All are worth",),
        ),
        Part(
            "v/a",
            (
                "{S} shares them equally among {a} friends. How many {O} does each friend get?",
                "{S} packs all {O} into {Cs} of {a}. How many {Cs} does {s} fill?",
            ),
            ("The result is",),
        ),
        Part(
            "a-v",
            ("{S} wants to have {a} {O}. How many more does {s} need?", "How many more make it {a} {O}?"),
            ("Missing are",),
        ),
        Part(
            "v+a",
            ("{R} has {a} {O}. How many {O} do {P} and {R} have together?",),
            ("Together there are",),
        ),
    ),
)

MONEY = World(
    "money",
    openings=(
        Part("a", ("{P} has {a} dollars.", "{P} goes to the market with {a} dollars.")),
        Part(
            "a*b",
            (
                "{P} saves {a} dollars a week for {b} weeks.",
                "{P} works {b} hours for {a} dollars an hour.",
                "For {b} days {P} earns {a} dollars each day.",
            ),
            ("The first money is",),
        ),
        Part(
            "a+b",
            ("{P} gets {a} dollars on Monday and {b} dollars on Friday.",),
            ("In all there are",),
        ),
        Part(
            "a-b",
            ("{Q} has {a} dollars. {P} has {b} dollars less than {Q}.",),
            ("{P} has",),
        ),
        Part("a*b", ("{Q} has {a} dollars. {P} has {b} times as much as {Q}.",), ("{P} has",)),
    ),
    events=(
        Part(
            "v+a",
            (
                "{S} earns {a} dollars more.",
                "Then {s} finds {a} dollars.",
                "{Q} pays {a} dollars back to {P}.",
            ),
            ("With the new money",),
        ),
        Part(
            "v-a",
            (
                "{S} spends {a} dollars on food.",
                "Then {s} pays {a} dollars for a book.",
                "{S} gives {a} dollars to {Q}.",
            ),
            ("There remain",),
        ),
        Part("v*a", ("{S} wins a game and has {a} times as much.",), ("It grows to",)),
        Part("v*a", ("The bank doubles the money.",), ("It grows to",), fixed=2),
        Part(
            "v/a",
            ("{S} splits the money equally among {a} people and keeps one share.",),
            ("One part is",),
        ),
        Part("v/a", ("{S} spends half of the money.",), ("One part is",), fixed=2),
        Part(
            "v+a*b",
            ("{S} sells {a} {O} for {b} dollars each.", "Then {s} works {a} hours for {b} dollars an hour."),
            ("New are", "With the new money"),
        ),
        Part(
            "v-a*b",
            ("{S} buys {a} {O} for {b} dollars each.", "{S} gives {b} dollars to each of {a} children."),
            ("Gone are", "There remain"),
        ),
    ),
    questions=(
        Part("v", ("How many dollars does {P} have now?", "How much money is that in the end, in dollars?")),
        Part(
            "v/a",
            ("A ticket costs {a} dollars. How many tickets can {s} buy?",),
            ("The result is",),
        ),
        Part(
            "a-v",
            ("A bicycle costs {a} dollars. How many dollars does {s} still need?",),
            ("Missing are",),
        ),
        Part(
            "v+a",
            ("{R} has {a} dollars. How many dollars do {P} and {R} have together?",),
            ("Together there are",),
        ),
    ),
)

WATER = World(
    "water",
    openings=(
        Part("a", ("There are {a} litres of water in a tank.", "A tank holds {a} litres of water.")),
        Part(
            "a*b",
            (
                "{P} pours {a} buckets of {b} litres into an empty tank.",
                "For {b} minutes a pump puts {a} litres a minute into an empty tank.",
            ),
            ("The tank gets",),
        ),
        Part(
            "a+b",
            ("{P} pours {a} litres of warm water and {b} litres of cold water into a tank.",),
            ("In all there are",),
        ),
        Part("a-b", ("A tank has room for {a} litres. It lacks {b} litres to be full.",), ("The tank has",)),
    ),
    events=(
        Part(
            "v+a",
            ("Rain adds {a} litres.", "{P} pours in another {a} litres.", "Then {a} litres more flow in."),
            ("With the new water",),
        ),
        Part(
            "v-a",
            ("{P} takes out {a} litres.", "Then {a} litres leak out.", "The sun dries up {a} litres."),
            ("There remain",),
        ),
        Part("v*a", ("After a storm there is {a} times as much.",), ("It grows to",)),
        Part("v*a", ("Overnight the amount doubles.",), ("It grows to",), fixed=2),
        Part("v/a", ("{P} fills {a} equal tanks from it and keeps one of them.",), ("One part is",)),
        Part("v/a", ("Half of the water leaks out.",), ("One part is",), fixed=2),
        Part(
            "v+a*b",
            ("{P} pours in {a} buckets of {b} litres.", "A pump adds {b} litres a minute for {a} minutes."),
            ("New are", "With the new water"),
        ),
        Part(
            "v-a*b",
            ("{P} gives {b} litres to each of {a} plants.", "Each of {a} horses drinks {b} litres."),
            ("Gone are", "There remain"),
        ),
    ),
    questions=(
        Part("v", ("How many litres are there now?", "How many litres of water are in the tank in the end?")),
        Part("v*a", ("A litre costs {a} cents. How many cents is the water worth?",), ("All are worth",)),
        Part("v/a", ("How many jars of {a} litres can be filled from it?",), ("The result is",)),
        Part("a-v", ("How many litres are missing to make it {a} litres?",), ("Missing are",)),
        Part(
            "v+a",
            ("Another tank has {a} litres. How many litres do both have together?",),
            ("Together there are",),
        ),
    ),
)

WORLDS = (COLLECTION, MONEY, WATER)
