"""The package's structure, read from its source: how imports flow, and what is kept out."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "inbol_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# A module imports from its own row and from the rows above it. There are no exceptions.
LAYERS = (
    ("errors", "defaults", "intervals", "interruption"),
    ("questions",),
    ("records", "artifacts", "progress", "prompts", "taught_refusals", "compilation"),
    ("stage",),
    ("responses",),
    ("data",),
    ("answers",),
    ("pages",),
    ("responses.chat", "responses.endpoint"),
    ("sharding", "processes"),
    ("models",),
    ("sampling",),
    ("confidence",),
    ("extrinsic",),
    ("construction",),
    ("training",),
    ("world",),
    ("evaluation",),
    ("api",),
    ("commands",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
# Public functions that mirror an interface of the field may have more than eight parameters.
MIRRORS = {"losses.ca_dpo.ca_dpo_loss"}


def module(file):
    """ "data.vqa" for inbol_jax/data/vqa.py, "data" for its __init__.py, "" for the root."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in FILES}


def layer(name):
    """The row of LAYERS whose longest entry is the module or a package above it."""
    rows = []
    for number, row in enumerate(LAYERS):
        rows += [(len(entry), number) for entry in row if f"{name}.".startswith(f"{entry}.")]
    assert rows, f"{name} is in no layer: add it to LAYERS"
    return max(rows)[1]


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
    own = set()
    for target in imported(TREES[MODULES[name]]):
        if target.split(".")[0] == "inbol_jax":
            own.add(target.removeprefix("inbol_jax").removeprefix("."))
    return {target for target in own if target in MODULES and target} - {name}


@pytest.mark.parametrize("name", [m for m in MODULES if m and not m.startswith("losses")])
def test_imports_flow_one_way(name):
    below = {other for other in dependencies(name) if not other.startswith("losses")}
    upwards = {other for other in below if layer(other) > layer(name)}
    assert not upwards, f"{name} imports {sorted(upwards)}, which come after it"


def test_no_import_goes_in_a_circle():
    graph = {}
    for name in filter(None, MODULES):
        above = {other for other in dependencies(name) if name.startswith(f"{other}.")}
        # A package's __init__ re-exports what lies below it: its own modules do not go through it.
        own = {other for other in dependencies(name) if other.startswith(f"{name}.")}
        graph[name] = dependencies(name) - above - own
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
        "intervals",
        "pages",
        "responses",
        "confidence.boundary",
        "construction",
        "evaluation.metrics",
        "extrinsic",
    ],
)
def test_plain_python_stays_plain(name):
    """JAX enters at models: construction, refusals and reports are plain Python and numpy."""
    heavy = {"jax", "flax", "optax", "orbax", "grain"}
    for other, file in MODULES.items():
        if other == name or other.startswith(f"{name}."):
            assert not {target.split(".")[0] for target in imported(TREES[file])} & heavy, other


def test_no_file_is_long_and_none_has_a_name_that_says_nothing():
    for file in FILES:
        lines = len(file.read_text(encoding="utf-8").splitlines())
        assert lines <= 400, f"{file}: {lines} lines, at most 400; split it"
        assert file.stem not in ("utils", "util", "helpers", "common", "misc"), file


def summary(name):
    """The first line of a module's docstring."""
    return ast.get_docstring(TREES[MODULES[name]]).split("\n")[0]


def test_the_page_on_the_architecture_is_of_this_package():
    """Its table of packages is made of their docstrings, in the order of LAYERS."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    packages = ["losses", *(entry for row in LAYERS for entry in row if (PACKAGE / entry).is_dir())]
    table = "\n".join(f"| `{name}/` | {summary(name)} |" for name in packages)
    assert f"|---|---|\n{table}\n\n" in page, f"write this:\n{table}"
    method = page.split("## The method, in an afternoon")[1].split("\n## ")[0]
    listed = [PACKAGE / name for name in re.findall(r"`([a-z_]+/[a-z_0-9]+\.py)`", method)]
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in listed)
    files, about = re.search(r"(\d+) files of about ([\d,]+) lines", method).groups()
    assert int(files) == len(listed)
    assert abs(int(about.replace(",", "")) - lines) < 300, lines


def test_no_function_has_more_than_eight_parameters():
    for name, file in MODULES.items():
        for node in ast.walk(TREES[file]):
            if isinstance(node, FUNCTIONS):
                parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([p for p in parameters if p.arg not in ("self", "cls")])
                assert count <= 8 or f"{name}.{node.name}" in MIRRORS, f"{name}.{node.name}"


def test_nothing_is_unpickled_and_no_foreign_code_is_run():
    pickles = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for file, tree in TREES.items():
        roots = {target.split(".")[0] for target in imported(tree)}
        assert not roots & (pickles | {"torch", "tensorflow"}), file
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", f"{file}:{node.lineno}"
                if node.arg == "trust_remote_code":
                    assert isinstance(node.value, ast.Constant), f"{file}:{node.lineno}"
                    assert node.value.value is False, f"{file}:{node.lineno}"
            if isinstance(node, ast.Name):
                assert node.id not in ("eval", "exec", "__import__"), f"{file}:{node.lineno}"


# Who may call what reads hostile bytes; all others call the safe function of the first one, except
# for what they have written themselves a moment ago.
READERS = {
    "Image.open": {"data.images", "world.glyphs"},
    "json.loads": {"artifacts", "data.rows", "data.sources", "models.rendering"}
    | {"training.checkpoint", "training.trainer", "world.glyphs"},
    "json.load": set(),
}


def test_pictures_and_json_are_read_in_one_place_each():
    for name, file in MODULES.items():
        calls = {ast.unparse(n.func) for n in ast.walk(TREES[file]) if isinstance(n, ast.Call)}
        readers = {reader for reader in READERS if name not in READERS[reader]}
        assert not calls & readers, f"{name}: use data.images.load_image, artifacts.parse_json"
        others = {"image_utils", "imread", "imageio", "cv2", "mpimg"}
        assert not others & {part for t in imported(TREES[file]) for part in t.split(".")}, name
        assert not {call for call in calls if call.endswith("imread")}, name


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_every_module_public_function_and_class_has_a_docstring(file):
    assert ast.get_docstring(TREES[file]), "the module has none"
    bare = []
    for node in TREES[file].body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            bare += [] if ast.get_docstring(node) else [node.name]
    assert not bare


@pytest.mark.parametrize("name", ["train.py", "evaluate.py"])
def test_entry_points_hold_no_logic(name):
    tree = ast.parse((ROOT / name).read_text())
    kinds = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While)
    assert not [node for node in ast.walk(tree) if isinstance(node, kinds)]


def test_tests_mirror_the_package():
    """Every package has tests in a folder of its name, and no folder is of anything else."""
    packages = {file.parent.name for file in FILES if file.parent != PACKAGE} - {"tiny-llava"}
    folders = {file.parent.name for file in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= packages | {"tpu", "benchmarks", "examples"}
    untested = packages - folders
    assert not untested


def imported_at_its_top(name):
    """Our own modules that run when a module is imported: what it imports outside of functions, and
    every package above those."""
    outside = []
    nodes = [TREES[MODULES[name]]]
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            outside.append(node)
        elif not isinstance(node, (*FUNCTIONS, ast.Lambda)):
            nodes += ast.iter_child_nodes(node)
    own = set()
    for target in imported(ast.Module(outside, [])):
        parts = target.split(".")
        if parts[0] == "inbol_jax":
            own |= {".".join(parts[1:end]) for end in range(1, len(parts) + 1)}
    return (own & set(MODULES)) | {name.rpartition(".")[0]}


def lines_with_imports(name):
    """Lines of a module and of all own modules that it imports at its top, followed through."""
    seen, todo = set(), [name]
    while todo:
        if (module := todo.pop()) not in seen:
            seen.add(module)
            todo += imported_at_its_top(module)
    return sum(len(MODULES[m].read_text(encoding="utf-8").splitlines()) for m in seen)


# Lines of a module and of all that it imports at its top, followed through (what a function imports
# when it is called does not count). They are there to be lowered, and never to be raised.
MOST_LINES = {
    "losses": 700,
    "sampling.sampler": 1_630,
    "construction.build": 3_910,  # the goal is 3,000
    "confidence.estimate": 3_860,
    "training.ca_dpo": 7_140,  # the goal is 6,500
}
MOST_LINES_OF_THE_PACKAGE = 20_996  # the goal is 16,000


@pytest.mark.parametrize("name", MOST_LINES)
def test_a_module_draws_in_few_lines(name):
    assert lines_with_imports(name) <= MOST_LINES[name]


def test_the_package_is_small():
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in FILES)
    assert lines <= MOST_LINES_OF_THE_PACKAGE, "a feature pays for its lines: what does it replace?"


def test_importing_the_training_changes_no_environment_variable():
    program = (
        "import os, jax; before = dict(os.environ); import inbol_jax.training.ca_dpo; "
        "assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
