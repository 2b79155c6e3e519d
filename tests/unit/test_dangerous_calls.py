"""T21: nothing in the project runs what it reads: no pickle, no eval, no unsafe loader, no shell.

The rules are on the syntax tree, not on text, so that a comment may name what the code must not do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("dicom_node", "workers", "models", "training", "db", "benchmarks", "docs", "docker")
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "shelve",
    "marshal",
    "dill",
    "cloudpickle",
    "jsonpickle",
    "yaml",
    "joblib",
}
# The exception's name alone is needed, to tell a refused file of weights from a damaged one.
ALLOWED_FROM_MODULE = {"pickle": {"UnpicklingError"}}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp"} | {
    "shutil.unpack_archive",
    "runpy.run_path",
    "importlib.reload",
    "torch.hub.load",
    "torch.jit.load",
    "np.fromregex",
}


def faults(source: str) -> list[str]:
    """What in a module could run code that was read, or a shell."""
    tree = ast.parse(source)
    names = _used_of_modules(tree)
    return [*_imports(tree, names), *(fault for call in _calls(tree) for fault in _call_faults(call))]


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _used_of_modules(tree: ast.AST) -> dict[str, set[str]]:
    used: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.setdefault(node.value.id, set()).add(node.attr)
    return used


def _imports(tree: ast.AST, used: dict[str, set[str]]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                module = name.name.partition(".")[0]
                wanted = used.get(name.asname or module, set())
                if module in FORBIDDEN_MODULES and not (
                    wanted and wanted <= ALLOWED_FROM_MODULE.get(module, set())
                ):
                    yield f"line {node.lineno}: import {module}"
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            wanted = {name.name for name in node.names}
            if module in FORBIDDEN_MODULES and not wanted <= ALLOWED_FROM_MODULE.get(module, set()):
                yield f"line {node.lineno}: from {module}"


def _call_faults(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    where = f"line {call.lineno}: {name}"
    if name in FORBIDDEN_CALLS:
        yield where
    if name == "torch.load" and given.get("weights_only") != "True":
        yield f"{where} without weights_only=True"
    if name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
        yield f"{where} with allow_pickle"
    if given.get("shell", "False") != "False":
        yield f"{where} with a shell"
    if name.endswith((".extractall", ".extract")) and given.get("filter") != "'data'":
        yield f"{where} without filter='data'"


@pytest.mark.parametrize("folder", SHIPPED)
def test_t21_nothing_that_is_read_is_run(folder: str) -> None:
    modules = sorted((ROOT / folder).rglob("*.py"))
    assert modules
    found = {
        f"{path.relative_to(ROOT)} {fault}" for path in modules for fault in faults(path.read_text("utf-8"))
    }
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(b'')",
        "from pickle import loads",
        "import pickle as p\np.UnpicklingError, p.load",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import yaml\nyaml.load('x')",
        "eval('1')",
        "exec('1')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "import tarfile\ntarfile.open('x').extractall()",
    ],
)
def test_t21_each_way_to_run_what_was_read_would_be_noticed(source: str) -> None:
    assert faults(source)


def test_t21_what_is_harmless_is_not_forbidden() -> None:
    harmless = (
        "import pickle, torch\n"
        "network.eval()\n"
        "try:\n    torch.load(file, weights_only=True)\nexcept pickle.UnpicklingError:\n    raise\n"
        "re.compile('x')\nast.literal_eval('1')\nsubprocess.run(['ls'])\n"
    )
    assert faults(harmless) == []
