"""Registering, naming and finding selectors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from eglr_selectors import (
    Selection,
    available_selectors,
    get_selector,
    register_selector,
    select,
    split_specifications,
    undefined,
)
from pool_builders import texts_pool

pytestmark = pytest.mark.usefixtures("own_registrations")


def test_a_users_selector_takes_six_lines() -> None:
    @register_selector("shortest_text")
    def shortest_text(*, longest: bool = False):
        """The shortest text."""
        return lambda pool: (max if longest else min)(range(len(pool)), key=lambda i: len(pool[i].text))

    pool = texts_pool(["100", "7", "22"])
    assert select(pool, "shortest_text").answer == "7"
    assert select(pool, "shortest_text(longest=True)").index == 0
    info = available_selectors()["shortest_text"]
    assert (info.description, info.uses_reference, info.options) == (
        "The shortest text.",
        False,
        {"longest": False},
    )
    assert info.origin == __name__


def test_every_selector_tells_its_options_and_source() -> None:
    infos = available_selectors()
    assert infos["entropy_weighted"].options == {"beta": 1.0}
    assert infos["cell"].options["sample"] == 0
    marked = {name for name, info in infos.items() if info.uses_reference}
    assert {"oracle", "temperature_oracle", "layer_oracle"} <= marked
    assert not marked & {"majority", "greedy", "best_of_n"}
    assert all(info.description.endswith(".") or info.origin == __name__ for info in infos.values())


def test_any_callable_selects() -> None:
    pool = texts_pool(["1", "2"])
    assert select(pool, lambda parsed: np.int64(1)).answer == "2"
    assert select(pool, lambda parsed: None).reason
    assert select(pool, get_selector("majority")) == select(pool, "majority")
    given = select(pool, lambda parsed: undefined(parsed, "too hard"))
    assert isinstance(given, Selection)
    assert given.reason == "too hard"


@pytest.mark.parametrize(("returned", "error"), [(2, ValueError), (-1, ValueError), (True, TypeError)])
def test_an_impossible_choice_is_refused(returned: object, error: type[Exception]) -> None:
    def strange(parsed):
        return returned

    with pytest.raises(error, match="strange"):
        select(texts_pool(["1", "2"]), strange)


def test_an_unknown_name_lists_the_known_and_hints() -> None:
    with pytest.raises(ValueError, match=r"oracle.*did you mean majority") as caught:
        get_selector("majorty")
    assert "majorty" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("majority(beta=1)", ["beta=1", "no options"]),
        ("cell(1, 2, 3, L, 5)", ["too many"]),
        ("cell(1)", ["temperature"]),
        ("cell(1, span=2, temperature=0)", ["span", "twice"]),
        ("__import__('os').system('true')", ["expected a name"]),
        ("entropy_weighted(beta=1+open)", ["neither a number"]),
        ("entropy_weighted(", ["expected a name"]),
        ("entropy_weighted(**{})", ["**"]),
        ("", ["expected a name"]),
    ],
)
def test_bad_specifications_are_refused(text: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        get_selector(text)
    assert all(word in str(caught.value) for word in words)


def test_options_may_be_written_or_given() -> None:
    assert get_selector("entropy_weighted(beta=2)").options == {"beta": 2}
    assert get_selector("entropy_weighted", beta=2).label == "entropy_weighted(beta=2)"
    assert get_selector("cell(2,0.7,0)").label == "cell(2, 0.7, 0)"
    with pytest.raises(ValueError, match="twice"):
        get_selector("entropy_weighted(beta=2)", beta=2)
    with pytest.raises(ValueError, match="beta"):
        select(texts_pool(["1"]), lambda parsed: 0, beta=2)


def test_a_list_is_split_outside_parentheses_only() -> None:
    text = "majority, entropy_weighted(beta=2),cell(2,0.7,0),best_of_n(verifier=mine(path='a,b'))"
    parts = [
        "majority",
        "entropy_weighted(beta=2)",
        "cell(2, 0.7, 0)",
        "best_of_n(verifier=\"mine(path='a,b')\")",
    ]
    assert split_specifications(text) == parts
    assert split_specifications(text.split(",")) == parts
    assert split_specifications(parts) == parts
    assert split_specifications("") == []
    with pytest.raises(ValueError, match="expected a name"):
        split_specifications("majority,,oracle")


def test_a_taken_name_and_a_bad_factory_are_refused() -> None:
    with pytest.raises(ValueError, match=r"majority.*registered"):

        @register_selector("majority")
        def mine():
            return lambda pool: 0

    with pytest.raises(ValueError, match="keyword-only"):

        @register_selector("positional")
        def positional(beta):
            return lambda pool: 0

    with pytest.raises(ValueError, match="letters"):
        register_selector("two words")(lambda: None)


def test_the_same_function_may_be_registered_again() -> None:
    def again():
        return lambda pool: 0

    register_selector("again")(again)
    register_selector("again")(again)


MODULE = '''
from eglr_selectors import register_selector

@register_selector("last_rollout")
def last_rollout():
    """The last rollout."""
    return lambda pool: len(pool) - 1

def parity(*, odd: bool = True):
    """Rollouts at odd places."""
    return lambda problem, rollouts: [float(i % 2 == odd) for i in range(len(rollouts))]
'''

PYPROJECT = """
[build-system]
requires = []
build-backend = "write_wheel"
backend-path = ["."]

[project]
name = "someones-selectors"
version = "1.0"
"""

# A backend of its own, so that pip really installs the package where no other backend is at hand.
BACKEND = """
import zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name, info = "someones_selectors-1.0-py3-none-any.whl", "someones_selectors-1.0.dist-info"
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as wheel:
        wheel.write("someones_selectors.py")
        metadata = "Metadata-Version: 2.1\\nName: someones-selectors\\nVersion: 1.0\\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        points = "last_rollout = someones_selectors\\nbroken = someones_missing_module\\n"
        verifiers = "[eglr_verifiers]\\nparity = someones_selectors:parity\\n"
        wheel.writestr(f"{info}/entry_points.txt", "[eglr_selectors]\\n" + points + verifiers)
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put another author's package, with one good and one broken entry point."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "someones_selectors.py").write_text(MODULE)
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "write_wheel.py").write_text(BACKEND)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return target


def _run(installed: Path, code: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )


def test_an_installed_package_brings_its_selector(installed: Path) -> None:
    code = """
from eglr_selectors import RolloutPool, available_selectors, select
pool = RolloutPool.from_texts(["a", "b", "c"])
print(select(pool, "last_rollout").index, available_selectors()["last_rollout"].origin)
"""
    done = _run(installed, code)
    assert done.stdout.split() == ["2", "someones_selectors"]
    assert done.stderr.count("plug-in broken") == 1
    assert "someones_missing_module" in done.stderr


def test_an_installed_package_brings_its_verifier(installed: Path) -> None:
    code = """
from eglr_selectors import RolloutPool, select
pool = RolloutPool.from_texts(["a", "b", "c"])
for verifier in ("parity", "parity(odd=False)"):
    print(select(pool, f"best_of_n(verifier={verifier})").index)
"""
    assert _run(installed, code).stdout.split() == ["1", "0"]


def test_a_known_selector_does_not_wait_for_other_packages(installed: Path) -> None:
    code = """
import sys
from eglr_selectors import get_selector
get_selector("majority")
print("someones_selectors" in sys.modules)
"""
    done = _run(installed, code)
    assert done.stdout.split() == ["False"]
    assert not done.stderr


def test_the_import_is_light() -> None:
    code = """
import sys, eglr_selectors
eglr_selectors.available_selectors()
heavy = "torch", "transformers", "lm_eval", "sklearn", "sympy", "scipy"
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
