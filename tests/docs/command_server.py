"""Runs ``lm_eval`` and ``eglr`` in forks of one process that has imported what they need.

The commands of the pages are many and short, and on two cores each would spend ten seconds on imports.
``python command_server.py SOCKET`` serves; the stubs that :func:`write_stubs` makes stand in a shell's
PATH for the console scripts and hand over their arguments, directory, environment and standard streams.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

# Console script to its entry point, as pyproject.toml and lm_eval declare them.
SCRIPTS = {"lm_eval": ("lm_eval.__main__", "cli_evaluate"), "eglr": ("lm_eval_eglr.cli.app", "main")}
PRELOADED = (
    *("torch", "transformers", "lm_eval.evaluator", "lm_eval.models.huggingface", "lm_eval.tasks"),
    *(
        "lm_eval_eglr.harness.model",
        "lm_eval_eglr.harness.task",
        "lm_eval_eglr.store",
        "lm_eval_eglr.reports.page",
    ),
    *("lm_eval_eglr.cli.app", "eglr_selectors.fitting", "sympy"),
)
STUB = """#!{python} -SE
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({path!r})
told = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(connection, [len(told).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(told)
code = connection.recv(1)
sys.exit(code[0] if code else 70)
"""


def write_stubs(folder: Path, path: Path) -> None:
    """Writes the stubs of all scripts into a folder for PATH."""
    for name in SCRIPTS:
        stub = folder / name
        stub.write_text(STUB.format(python=sys.executable, path=str(path), name=name))
        stub.chmod(0o755)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Path]:
    """Starts a server; yields the folder of the stubs."""
    scripts, path = folder / "scripts", folder / "socket"
    scripts.mkdir()
    write_stubs(scripts, path)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        command = [sys.executable, __file__, str(path)]
        server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while not path.exists() and server.poll() is None:
                time.sleep(0.1)
            if server.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            yield scripts
        finally:
            server.kill()
            server.wait()


def serve(path: str) -> None:
    """Serves until killed, or until the process that started it is gone."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()  # from now on a stub waits
    for name in PRELOADED:
        import_module(name)
    index_only_our_tasks()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener.settimeout(5)
    parent = os.getppid()
    while os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            connection.setblocking(True)
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                code = run_one(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(bytes([code]))
                os._exit(0)
            connection.close()


def index_only_our_tasks() -> None:
    """Spares every fork the 20 s in which lm_eval reads its own thousands of task files; no page runs one."""
    import lm_eval.tasks
    from lm_eval.tasks._index import TaskIndex

    build = TaskIndex.build
    theirs = Path(lm_eval.tasks.__file__).parent

    def without_theirs(paths: Iterable[Path], **options: Any) -> dict[str, Any]:
        return build([path for path in paths if Path(path) != theirs], **options)

    TaskIndex.build = staticmethod(without_theirs)


def run_one(connection: socket.socket) -> int:
    """Runs what one stub asked for; returns the exit code."""
    size, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    told = b""
    while len(told) < int.from_bytes(size, "big"):
        told += connection.recv(1 << 20)
    name, arguments, folder, environment = json.loads(told)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = [each or folder for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.argv = [name, *arguments]
    module, function = SCRIPTS[name]
    code = 0
    try:
        getattr(import_module(module), function)()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code & 0xFF


if __name__ == "__main__":
    serve(sys.argv[1])
