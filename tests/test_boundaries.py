"""What may import what, and the rules that every file keeps; read from the syntax tree, so nothing has to run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"model": {"model"}, "offline": {"offline", "model"}, "service": {"service", "model"}}
COMMAND_LINE = "offline/cli.py"  # the one file that joins both halves, and only when a command asks for it
HEAVY = {"torch", "polars", "scipy", "sklearn", "gensim", "matplotlib", "PIL", "pyspark"}
TRAINING_ONLY = {"model/network.py", "model/layers.py", "model/losses.py"}  # of model, what serving does not need
HIDE = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))"
RUNS_CODE = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
MAX_LINES = {"tests": 500, "bench": 350, "model": 350, "offline": 350, "service": 350}
MAX_FUNCTION_LINES = 60

SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for package in MAX_LINES
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {name: ast.parse(text, name) for name, text in SOURCES.items()}
PACKAGED = [name for name in SOURCES if name.split("/")[0] in MAY_IMPORT]


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Top-level names of all imports at any depth, with their lines; a relative import reads as its dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level or (node.module or "").split(".")[0]), node.lineno


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_in_functions(tree: ast.AST) -> set[int]:
    return {line for f in functions(tree) for line in range(f.lineno, (f.end_lineno or f.lineno) + 1)}


def serves(name: str) -> bool:
    """Whether a file belongs to what the serving image runs."""
    return name.startswith(("service/", "model/")) and name not in TRAINING_ONLY


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Every text file of the repository, those not yet added included."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if names.returncode != 0:
        pytest.skip("not a git checkout")
    for name in sorted(filter(None, names.stdout.split("\0"))):
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_packages_import_only_what_they_may() -> None:
    faults = []
    for name in PACKAGED:
        package = name.split("/")[0]
        inside_functions = lines_in_functions(TREES[name])
        for target, line in imported(TREES[name]):
            lazy_service = name == COMMAND_LINE and target == "service" and line in inside_functions
            if target in MAY_IMPORT and target not in MAY_IMPORT[package] and not lazy_service:
                faults.append(f"{name}:{line} imports {target}")
    assert not faults, "\n".join(faults)


def test_imports_are_absolute() -> None:
    faults = [f"{n}:{line}" for n in PACKAGED for target, line in imported(TREES[n]) if target.startswith(".")]
    assert not faults, faults


def test_serving_half_never_imports_training_libraries() -> None:
    faults = [f"{n}:{line} imports {t}" for n in PACKAGED if serves(n) for t, line in imported(TREES[n]) if t in HEAVY]
    assert not faults, "\n".join(faults)


def test_the_app_loads_no_training_libraries() -> None:
    """All of scipy's name that may show up is its version, which numba looks at where it is installed."""
    loaded = run_python(f"import sys, service.app; print(*sorted({HEAVY - {'scipy'}!r} & set(sys.modules)))")
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == "", f"importing service.app loads {loaded.stdout}"


def test_the_app_needs_no_training_libraries() -> None:
    """The serving image has none of them: there, an import of any is an error, as here a module set to None."""
    loaded = run_python(f"{HIDE}; import service.app, service.serve")
    assert loaded.returncode == 0, loaded.stderr


@pytest.mark.parametrize("command", ["--help", "serve --help", "releases --help", "rollback --help"])
def test_serving_commands_need_no_training_libraries(command: str) -> None:
    helped = run_python(f"{HIDE}; sys.argv = ['pinsage', *{command.split()!r}]; from offline.cli import main; main()")
    assert helped.returncode == 0, helped.stderr
    assert "Usage" in helped.stdout


def test_init_files_are_empty() -> None:
    assert [n for n in SOURCES if n.endswith("__init__.py") and SOURCES[n].strip()] == []


def test_nothing_that_runs_code_from_data() -> None:
    faults = [f"{n}:{line} imports {t}" for n in PACKAGED for t, line in imported(TREES[n]) if t in RUNS_CODE]
    for name in PACKAGED:
        calls = (node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call))
        faults += [f"{name}:{c.lineno} {ast.unparse(c.func)}" for c in calls if runs_code(c)]
    assert not faults, "\n".join(faults)


def runs_code(call: ast.Call) -> bool:
    """Whether a call can execute what it reads."""
    callee = ast.unparse(call.func)
    flags = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    if callee == "torch.load":
        return flags.get("weights_only") is not True
    dangerous = callee in {"eval", "exec", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen"}
    return dangerous or bool(flags.get("allow_pickle")) or bool(flags.get("shell"))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("eval(text)", True),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=True)", False),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path, mmap_mode='r')", False),
        ("subprocess.run(line, shell=True)", True),
        ("model.eval()", False),
    ],
)
def test_the_check_for_code_from_data_works(call: str, expected: bool) -> None:
    expression = ast.parse(call, mode="eval").body
    assert isinstance(expression, ast.Call)
    assert runs_code(expression) is expected


def test_files_are_short() -> None:
    sizes = {name: len(text.splitlines()) for name, text in SOURCES.items()}
    assert {n: size for n, size in sizes.items() if size > MAX_LINES[n.split("/")[0]]} == {}


def test_functions_are_short() -> None:
    sizes = {
        f"{name}:{f.lineno} {f.name}": (f.end_lineno or f.lineno) - f.lineno + 1
        for name in SOURCES
        for f in functions(TREES[name])
    }
    assert {where: size for where, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


def test_nothing_is_left_for_later() -> None:
    unfinished = re.compile(r"\b([T]ODO|[F]IXME|[N]otImplementedError)\b")
    faults = [name for name, text in SOURCES.items() if unfinished.search(text)]
    assert faults == []


def test_no_file_names_a_place_outside_the_repository() -> None:
    """Paths of somebody's machine and addresses of package registries say nothing to anybody else."""
    elsewhere = re.compile(r"(?<![\w.])/([w]ork|[r]oot)/|[p]ypi\.org|[p]ythonhosted|[d]ownload\.pytorch")
    faults = [
        f"{name}:{number} {line.strip()[:80]}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if elsewhere.search(line)
    ]
    assert not faults, "\n".join(faults)
