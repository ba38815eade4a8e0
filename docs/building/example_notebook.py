"""The example notebook as a page, and its outputs made anew.

``python docs/building/example_notebook.py`` runs every cell of ``examples/rollouts.ipynb`` in a fresh
folder, as Jupyter would, and writes what it shows into the file. The site's page is made of it when the site
is built.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "rollouts.ipynb"
PLACE = "tutorials/notebook"
STYLE = re.compile(r"<style.*?</style>", re.DOTALL)
PLOT_SIZE = {"width": 720, "height": 360, "scale": 1.5}


def code_cells() -> list[str]:
    """The code of the notebook, cell by cell."""
    return ["".join(cell["source"]) for cell in _cells() if cell["cell_type"] == "code"]


def write_page(source: Path) -> None:
    """Writes the notebook as a Markdown page with its pictures, below a folder.

    Args:
        source: Where the site's pages are gathered.
    """
    parts: list[str] = []
    pictures = 0
    for cell in _cells():
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                pictures += 1
                name = f"notebook_{pictures}.png"
                (source / PLACE).parent.mkdir(parents=True, exist_ok=True)
                (source / PLACE).with_name(name).write_bytes(base64.b64decode(data["image/png"]))
                parts.append(f"![{_last_line(text)}]({name})")
            elif "text/html" in data:
                # The site has a style of its own, and a blank line would end the block.
                shown = STYLE.sub("", "".join(data["text/html"]))
                parts.append(re.sub(r"\n\s*\n", "\n", shown))
            else:
                printed = "".join(output.get("text", data.get("text/plain", ())))
                parts.append(f"```text\n{printed.rstrip()}\n```")
        if parts[-1].startswith("```python") and cell["outputs"]:
            raise ValueError(f"{NOTEBOOK}: an output that the page cannot show")
    page = (source / PLACE).with_suffix(".md")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _last_line(code: str) -> str:
    return code.rstrip().splitlines()[-1]


def _cells() -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return cells


def fill() -> None:
    """Runs all cells and writes their outputs."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    before, count = Path.cwd(), 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for cell in notebook["cells"]:
                if cell["cell_type"] == "code":
                    count += 1
                    cell["execution_count"] = count
                    cell["outputs"] = _run("".join(cell["source"]), names, count)
        finally:
            os.chdir(before)
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _run(code: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Runs a cell; returns what it printed and what its last line shows."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, shown = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
    if shown is not None:
        data = _data(shown)
        outputs.append(
            {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data}
        )
    return outputs


def _data(shown: Any) -> dict[str, Any]:
    if hasattr(shown, "to_image"):  # a figure of plotly: a picture is what every viewer shows
        picture = shown.update_layout(paper_bgcolor="white").to_image(format="png", **PLOT_SIZE)
        return {"image/png": base64.b64encode(picture).decode(), "text/plain": ["Figure"]}
    data: dict[str, Any] = {"text/plain": _lines(repr(shown))}
    if hasattr(shown, "_repr_html_"):
        data["text/html"] = _lines(shown._repr_html_())
    return data


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    fill()
