"""Wheel and sdist hold what they should, and an installed wheel works outside the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIND = """
import eglr_selectors, lm_eval_eglr, _lm_eval_eglr_autoload
from lm_eval.api.registry import filter_registry, get_model
from lm_eval.tasks import TaskManager
import lm_eval.models
print(get_model("hf-eglr").__name__, "eglr_select" in filter_registry)
known = TaskManager().all_tasks
print("demo_eglr" in known, "hellaswag" in known)
from lm_eval_eglr.decoding import PoolDecoder
[pool] = PoolDecoder.from_pretrained("demo").generate("How many", max_new_tokens=2, progress=False)
assert len(pool) == 16
print(*(module.__file__ for module in (eglr_selectors, lm_eval_eglr, _lm_eval_eglr_autoload)))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def test_the_wheel_holds_only_what_it_should(built):
    names = zipfile.ZipFile(built[1]).namelist()
    top = {name.split("/")[0] for name in names}
    assert {entry for entry in top if not entry.endswith(".dist-info")} == {
        "lm_eval_eglr",
        "eglr_selectors",
        "_lm_eval_eglr_autoload.py",
        "lm_eval_eglr.pth",
        "lm_eval_eglr.start",
    }
    assert "lm_eval_eglr/tasks/math500/math500_eglr.yaml" in names
    for model in ("demo_model", "demo_recurrent"):
        assert f"lm_eval_eglr/{model}/model.safetensors" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    kinds = {Path(name).suffix for name in names if "dist-info" not in name}
    assert kinds <= {
        ".py",
        ".pth",
        ".start",
        ".typed",
        ".yaml",
        ".md",
        ".jsonl",
        ".html",
        ".j2",
        ".css",
        ".js",
        ".json",
        ".jinja",
        ".safetensors",
        "",
    }


def test_the_sdist_can_be_tested_and_holds_no_build_products(built):
    with tarfile.open(built[0]) as archive:
        names = archive.getnames()
    inside = {name.split("/", 1)[1] for name in names if "/" in name}
    assert {"Makefile", "LICENSE", "README.md", "constraints.txt", "tests/tiny_models.py"} <= inside
    assert {"examples/demo_model/word_problems.py", "lm_eval_eglr/demo_model/tokenizer.json"} <= inside
    assert not [name for name in inside if ".venv" in name or "__pycache__" in name]


def test_an_installed_wheel_plugs_itself_in(built, tmp_path):
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    # lm_eval and torch from this environment; a folder named in a .pth file has its own .pth files ignored,
    # so the plug-in that answers is the wheel's.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(packages),
            str(built[1]),
        ],
        check=True,
    )
    done = subprocess.run(
        [str(environment / "bin" / "python"), "-c", FIND],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plugged, tasks, files = done.stdout.splitlines()
    assert plugged == "EGLRLM True"
    assert tasks == "True True", "ours beside lm_eval's own"
    assert all(file.startswith(str(packages)) for file in files.split())


def test_the_version_stands_in_one_place_and_the_citation_agrees():
    import eglr_selectors

    import lm_eval_eglr

    [declared] = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    [cited] = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert lm_eval_eglr.__version__ == eglr_selectors.__version__ == cited == declared


def test_an_argument_that_needs_an_extra_says_which(monkeypatch):
    from lm_eval_eglr.harness.model_arguments import OPTIONAL, require_extras

    for argument, package, extra in OPTIONAL:
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ModuleNotFoundError, match=rf"{argument}='x': needs {package}.*\[{extra}\]"):
            require_extras({argument: "x"})
    require_extras({"gguf_file": None})


def test_extras_that_messages_name_are_declared():
    declared = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    sources = [path for name in ("lm_eval_eglr", "selectors") for path in (ROOT / name).rglob("*.py")]
    named = {
        extra for path in sources for extra in re.findall(r"lm-eval-eglr\[(\w+)\]", path.read_text("utf-8"))
    }
    assert {"figures", "trl", "vllm"} <= named <= declared
