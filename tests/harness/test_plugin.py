"""The stock commands find the model, the filter and the tasks; switched off or broken, lm_eval still runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stock_tasks import UNINDEXED, without_stock_tasks

ROOT = Path(__file__).resolve().parents[2]
STOCK = "(with lm_eval's own tasks)"
FIND = """
from lm_eval.api.registry import filter_registry, get_model
from lm_eval.tasks import TaskManager
import lm_eval.models
try:
    print("model", get_model("hf-eglr").__name__)
except Exception as error:
    print("no model")
print("filter", "eglr_select" in filter_registry)
print("task", "math500_eglr" in TaskManager().all_tasks)
"""


def run(*command, cwd=ROOT, **environment):
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def script(name):
    return str(Path(sys.executable).parent / name)


def test_everything_is_found_in_the_checkout_and_registering_again_changes_nothing():
    """Outside it, and beside lm_eval's own tasks, says the wheel's test in test_packaging."""
    code = FIND + "from lm_eval_eglr.harness import plugin; plugin.install(); plugin.install()\n" + FIND
    done = run(sys.executable, "-c", code, **without_stock_tasks())
    lines = done.stdout.split("\n")
    assert lines[:3] == lines[3:6] == ["model EGLRLM", "filter True", "task True"], done.stderr


@pytest.mark.slow
def test_everything_is_found_from_outside_the_checkout(tmp_path):
    done = run(sys.executable, "-c", FIND, cwd=tmp_path)
    assert done.stdout.split("\n")[:3] == ["model EGLRLM", "filter True", "task True"], done.stderr


def test_the_switch_turns_it_off():
    done = run(sys.executable, "-c", FIND, LM_EVAL_EGLR_AUTOLOAD="0", **without_stock_tasks())
    assert done.stdout.split("\n")[:3] == ["no model", "filter False", "task False"], done.stderr


def test_a_broken_package_costs_one_warning(tmp_path):
    broken = tmp_path / "lm_eval_eglr"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('broken on purpose')")
    done = run(sys.executable, "-c", FIND, cwd=tmp_path, **without_stock_tasks())
    assert done.stdout.split("\n")[:3] == ["no model", "filter False", "task False"]
    assert done.stderr.count("lm-eval-eglr is inactive") == 1, done.stderr
    assert "broken on purpose" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([script("lm_eval")], id="lm_eval"),
        pytest.param([script("lm_eval"), STOCK], id="lm_eval, stock tasks", marks=pytest.mark.slow),
        pytest.param([script("lm-eval")], id="lm-eval", marks=pytest.mark.slow),
        pytest.param([sys.executable, "-m", "lm_eval"], id="python -m lm_eval", marks=pytest.mark.slow),
        pytest.param([sys.executable, "-S", "-c"], id="without .pth files"),
    ],
)
def test_commands_know_the_tasks(command):
    if "-S" in command:
        # Without site there is no .pth file and no site-packages: the path is given by hand.
        paths = [path for path in sys.path if path]
        code = (
            f"import runpy, sys; runpy.run_path({str(UNINDEXED / 'sitecustomize.py')!r}); "
            f"sys.path[:0] = {paths!r}; sys.argv = ['lm_eval_eglr', 'ls', 'tasks']; "
            "from lm_eval_eglr.__main__ import main; main()"
        )
        done = run(*command, code)
    else:
        environment = {} if STOCK in command else without_stock_tasks()
        words = [word for word in command if word != STOCK]
        done = run(*words, "ls", "tasks", **environment)
        assert ("hellaswag" in done.stdout) == (STOCK in command), done.stderr
    assert "math500_eglr" in done.stdout, done.stderr


def test_validate_accepts_the_task():
    done = run(script("lm_eval"), "validate", "--tasks", "demo_eglr", **without_stock_tasks())
    assert done.returncode == 0, done.stderr
    assert "demo_eglr" in done.stdout + done.stderr


def test_the_hook_is_cheap_and_adds_no_imports():
    heavy = "('torch', 'lm_eval', 'logging', 'importlib.metadata')"
    code = f"import sys; print(sorted(m for m in sys.modules if 'eglr' in m or m in {heavy}))"
    assert run(sys.executable, "-c", code).stdout.strip() == "['_lm_eval_eglr_autoload']"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("selectors=majority,oracle", {"selectors": "[majority,oracle]"}),
        ("selectors=majority", {"selectors": "[majority]"}),
        (
            "selectors=entropy_weighted(beta=2),oracle,x=1",
            {"selectors": "[entropy_weighted(beta=2),oracle]", "x": 1},
        ),
        ("x=1,selectors=majority,oracle,y=2", {"x": 1, "selectors": "[majority,oracle]", "y": 2}),
        ("spans=0:2,x=[1,2]", {"spans": "0:2", "x": [1, 2]}),
    ],
)
def test_selectors_may_be_a_list_with_commas(text, parsed):
    from lm_eval._cli import utils

    from lm_eval_eglr.harness.plugin import accept_selector_lists

    accept_selector_lists(utils)
    assert utils.key_val_to_dict(text) == parsed


def test_other_keys_still_need_their_equals_sign():
    from lm_eval._cli import utils

    from lm_eval_eglr.harness.plugin import accept_selector_lists

    accept_selector_lists(utils)
    with pytest.raises(ValueError, match="expected `key=value`, got 'oracle'"):
        utils.key_val_to_dict("spans=0,oracle")


def test_the_start_up_file_calls_every_hook_and_no_other() -> None:
    """The two tables are written twice, since the start-up file must not import the package."""
    from importlib.util import module_from_spec, spec_from_file_location

    from lm_eval_eglr.harness.plugin import HOOKS

    path = Path(__file__).resolve().parents[2] / "packaging" / "_lm_eval_eglr_autoload.py"
    spec = spec_from_file_location("autoload_of_this_checkout", path)
    assert spec is not None
    assert spec.loader is not None
    autoload = module_from_spec(spec)
    spec.loader.exec_module(autoload)
    assert {name: hook.__name__ for name, hook in HOOKS.items()} == autoload.AFTER_IMPORT
