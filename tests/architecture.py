"""The checker of the architecture: it reads from the sources who imports whom and what else the rules name.

    curvature → sphere → program → solvers → maps → optim        the corridor; imports point left
    measure, norms, symmetry      import the corridor up to maps, not each other
    theory                        imports everything but the front
    plots, cli, commands, html, …  the front (FRONT below): imports everything
    errors, arrays, …             every other module directly under icm/ is shared: all may import it, and it
                                  imports shared modules only

An import inside a function or under TYPE_CHECKING is deferred: it cannot close a circle, and it may reach
further where DEFERRED says so.
"""

from __future__ import annotations

import ast
import graphlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

CORRIDOR = ("curvature", "sphere", "program", "solvers", "maps", "optim")
SIDE = ("measure", "norms", "symmetry")
FRONT = (
    "plots",
    "cli",
    "commands",
    "files",
    "demo",
    "tables",
    "verdicts",
    "html",
    "mathml",
    "page",
    "measured",
    "checkpoints",
)
ROOMS = (*CORRIDOR, *SIDE, "theory", *FRONT)
FACE = ""  # the package's own __init__

# What methods may reach for when they are called, though their room may not be built on it.
DEFERRED = {
    ("program", "solvers"),  # program.solve()
    ("solvers", "maps"),  # solve(method="products")
    *((room, "plots") for room in (*CORRIDOR, *SIDE, "theory")),  # solution.plot() and the like
}

LONGEST = 350
HEAVY = ("cvxpy", "sympy", "flint", "mpmath", "matplotlib", "scipy", "typer", "rich", "marimo")

# Written so that the patterns do not match themselves.
FORBIDDEN = {
    "the host of a package registry": re.compile(
        r"\b(?:py(?:pi)\.org|python(?:hosted)\.org|download\.py(?:torch)\.org|registry\.np(?:mjs)\.org)"
    ),
    "an absolute path of some machine": re.compile(r"(?<![\w.~$}])/(?:work|tmp|home|root|Users|opt|mnt)/"),
}
WRITTEN = {"", ".py", ".toml", ".txt", ".md", ".json", ".yml", ".yaml", ".css", ".js", ".html", ".sh", ".cfg"}


class Import(NamedTuple):
    source: str
    target: str
    line: int
    deferred: bool


def modules(tree: Path) -> dict[str, Path]:
    """Dotted name → file, for every module of the package in folder `tree`."""
    names = {}
    for path in sorted(tree.rglob("*.py")):
        parts = (tree.name, *path.relative_to(tree).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


def statements(node: ast.AST, deferred: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below `node`, and whether it is deferred."""
    for child in ast.iter_child_nodes(node):
        later = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and is_type_checking(child.test):
            for inner in child.body:
                yield inner, True
                yield from statements(inner, True)
            for inner in child.orelse:
                yield inner, later
                yield from statements(inner, later)
        else:
            yield child, later
            yield from statements(child, later)


def imports(tree: Path) -> Iterator[Import]:
    """Every import of the package's own modules, in full; `from a import b` is a.b if that is a module."""
    known = modules(tree)
    for source, path in known.items():
        package = source.split(".") if path.name == "__init__.py" else source.split(".")[:-1]
        for node, deferred in statements(ast.parse(path.read_text(encoding="utf-8"))):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                inside = [f"{base}.{alias.name}" for alias in node.names]
                targets = sorted({name if name in known else base for name in inside})
            elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
                targets = [str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)]
            for target in targets:
                if target.split(".")[0] == tree.name:
                    yield Import(source, target, node.lineno, deferred)  # type: ignore[attr-defined]


def room(module: str) -> str:
    return [*module.split("."), FACE][1]


def may_import(source: str, target: str) -> bool:
    """Whether room `source` may be built on room `target`."""
    if source == target or source in (FACE, *FRONT):
        return True
    if source not in ROOMS:
        return target not in (FACE, *ROOMS)
    if target not in (FACE, *ROOMS):
        return True
    if source == "theory":
        return target not in FRONT
    if source == "optim":
        return target in (*CORRIDOR, *SIDE)
    if source in SIDE:
        return target in CORRIDOR[:-1]
    return target in CORRIDOR[: CORRIDOR.index(source)]


def wrong_imports(tree: Path) -> list[str]:
    """Imports that point the wrong way, and folders that the architecture does not know."""
    packages = {room(name) for name, path in modules(tree).items() if path.parent != tree}
    faults = [f"{tree.name}/{name}: no such room in the architecture" for name in sorted(packages - {*ROOMS})]
    for source, target, line, deferred in imports(tree):
        pair = room(source), room(target)
        if not (may_import(*pair) or (deferred and pair in DEFERRED)):
            faults.append(f"{source}, line {line}: {pair[0]} may not import {target}")
    return faults


def circle(tree: Path) -> list[str]:
    """One circle among the imports that run at module level, or nothing."""
    graph: dict[str, set[str]] = {name: set() for name in modules(tree)}
    for source, target, _, deferred in imports(tree):
        if not deferred:
            graph[source].add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def long_files(tree: Path) -> list[str]:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules(tree).values()}
    return [f"{path.relative_to(tree.parent)}: {n} lines" for path, n in lengths.items() if n > LONGEST]


def written(root: Path) -> list[Path]:
    """The text files of the repository: what git tracks or would, or all there are where git cannot say."""
    names = ""
    if git := shutil.which("git"):
        command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout
    if names:
        paths = [root / name for name in names.split("\0") if name]
    else:
        hidden = re.compile(r"(^|/)\.(?!ci/)")
        paths = [path for path in root.rglob("*") if not hidden.search(path.relative_to(root).as_posix())]
    return sorted(path for path in paths if path.suffix in WRITTEN and path.is_file())


def forbidden_words(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}, line {number}: {what} ({found.group()})"
        for path in written(root)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        for what, pattern in FORBIDDEN.items()
        if (found := pattern.search(line))
    ]


def loaded_by(statement: str, watched: tuple[str, ...]) -> list[str]:
    """Which of the `watched` packages a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps([m for m in {watched!r} if m in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
