"""The package's structure, read from its source: which way imports flow, and what the package does without."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "inbol_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}

# A module imports from its own layer and from the layers above it in this list, nowhere else.
LAYERS = (
    ("errors", "defaults", "intervals"),
    ("records", "artifacts", "progress"),
    ("pages",),
    ("data",),
    ("responses",),
    ("sharding", "processes"),
    ("models",),
    ("sampling",),
    ("confidence",),
    ("extrinsic",),
    ("construction",),
    ("training",),
    ("world",),
    ("evaluation",),
    ("demo",),
    ("cli",),
)


def module(file):
    """ "data.vqa" for inbol_jax/data/vqa.py, "data" for inbol_jax/data/__init__.py, "" for the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in FILES}


def layer(name):
    """Of the longest entry that names the module or a package above it."""
    found = [
        (len(entry), i)
        for i, row in enumerate(LAYERS)
        for entry in row
        if name == entry or name.startswith(f"{entry}.")
    ]
    assert found, f"{name} is in no layer: add it to LAYERS"
    return max(found)[1]


def imported(tree):
    """Absolute names of everything that a file imports, at its top or within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dependencies(name):
    """The package's own modules that a module imports."""
    own = {
        i.removeprefix("inbol_jax").removeprefix(".")
        for i in imported(TREES[MODULES[name]])
        if i.split(".")[0] == "inbol_jax"
    }
    return {i for i in own if i in MODULES and i} - {name}


@pytest.mark.parametrize("name", [m for m in MODULES if m and not m.startswith("losses")])
def test_imports_flow_one_way(name):
    upwards = {
        other
        for other in dependencies(name)
        if not other.startswith("losses") and layer(other) > layer(name)
    }
    assert not upwards, f"{name} imports {sorted(upwards)}, which come after it"


def test_no_import_goes_in_a_circle():
    graph = {
        name: {d for d in dependencies(name) if not name.startswith(f"{d}.")} - {""}
        for name in MODULES
        if name
    }
    # A package's __init__ re-exports what lies below it: its own modules do not go through it.
    graph = {n: {d for d in deps if not d.startswith(f"{n}.")} for n, deps in graph.items()}
    TopologicalSorter(graph).prepare()


def test_losses_import_nothing_of_ours():
    for name in MODULES:
        if name.startswith("losses"):
            assert {d for d in dependencies(name) if d.split(".")[0] != "losses"} == set(), name


@pytest.mark.parametrize(
    "name",
    [
        "records",
        "artifacts",
        "confidence.boundary",
        "pages",
        "responses",
        "refusal",
        "confidence.matching",
        "evaluation.metrics",
        "extrinsic",
    ],
)
def test_plain_python_stays_plain(name):
    """JAX enters at batches and models; boundary, refusal, matching and reports are plain Python and numpy."""
    for other, file in MODULES.items():
        if other == name or other.startswith(f"{name}."):
            assert not {i.split(".")[0] for i in imported(TREES[file])} & {
                "jax",
                "flax",
                "optax",
                "orbax",
                "grain",
            }, other


def test_no_file_is_long_and_none_is_called_utils():
    for file in FILES:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file
        assert file.name not in ("utils.py", "util.py", "helpers.py", "common.py"), file


def test_nothing_is_unpickled_and_no_foreign_code_is_run():
    for file, tree in TREES.items():
        roots = {i.split(".")[0] for i in imported(tree)}
        assert not roots & {
            "pickle",
            "cPickle",
            "dill",
            "cloudpickle",
            "joblib",
            "marshal",
            "shelve",
            "torch",
            "tensorflow",
        }, file
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", f"{file}:{node.lineno}"
                if node.arg == "trust_remote_code":
                    assert isinstance(node.value, ast.Constant), f"{file}:{node.lineno}"
                    assert node.value.value is False, f"{file}:{node.lineno}"
            if isinstance(node, ast.Name):
                assert node.id not in ("eval", "exec", "__import__"), f"{file}:{node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_every_module_public_function_and_class_has_a_docstring(file):
    assert ast.get_docstring(TREES[file]), "the module has none"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    bare = [
        n.name
        for n in TREES[file].body
        if isinstance(n, kinds) and not n.name.startswith("_") and not ast.get_docstring(n)
    ]
    assert not bare


@pytest.mark.parametrize("name", ["train.py", "evaluate.py"])
def test_entry_points_hold_no_logic(name):
    tree = ast.parse((ROOT / name).read_text())
    assert not [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.For | ast.While)
    ]
    assert {i for i in imported(tree) if i.startswith("inbol_jax.")} <= {
        "inbol_jax.cli",
        f"inbol_jax.cli.{name.removesuffix('.py')}",
    }
