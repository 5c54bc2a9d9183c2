"""The architecture holds, and its checker, given a tree with one fault, finds that fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import (
    HEAVY,
    LONGEST,
    ROOT,
    circle,
    forbidden_words,
    loaded_by,
    long_files,
    wrong_imports,
)


def test_imports_point_left():
    assert wrong_imports(ROOT / "icm") == []


def test_no_import_circles():
    assert circle(ROOT / "icm") == []


def test_files_fit_on_a_few_screens():
    assert long_files(ROOT / "icm") == []


def test_nothing_names_a_machine_or_a_registry():
    assert forbidden_words(ROOT) == []


def test_bare_import_is_light():
    assert loaded_by("import icm", HEAVY) == []


# The checker itself: silent on a sound tree, and it names the fault of any other.


def plant(root: Path, files: dict[str, str]) -> Path:
    """A package `icm` below `root`, with these files and an __init__ wherever one is missing."""
    for name, text in {"__init__.py": "", **files}.items():
        path = root / "icm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        (path.parent / "__init__.py").touch()
    return root / "icm"


SOUND = {
    "errors.py": "class Bad(ValueError): ...",
    "arrays.py": "from icm.errors import Bad",
    "cli.py": "from icm import plots",
    "plots.py": "import icm\nfrom icm import theory, optim",
    "curvature/shape.py": "from ..errors import Bad\nimport math",
    "curvature/__init__.py": "from .shape import H\nfrom . import power",
    "curvature/power.py": "from icm.curvature.shape import H",
    "program/isotropic.py": "from icm.curvature import H\ndef solve():\n    from icm import solvers, plots",
    "solvers/newton.py": "from icm.program import isotropic\nimport icm.arrays",
    "maps/scalar.py": "from icm.solvers.newton import step\ndef plot():\n    import icm.plots",
    "norms/norm.py": "from icm.maps import scalar",
    "optim/steepest.py": "from icm.norms.norm import Norm",
    "theory/claim.py": "import icm\nfrom icm import optim, symmetry",
}


def test_checker_accepts_a_sound_tree(tmp_path):
    tree = plant(tmp_path, SOUND)
    assert (wrong_imports(tree), circle(tree), long_files(tree)) == ([], [], [])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("curvature/wall.py", "from icm.sphere import law"),
        ("sphere/law.py", "from ..program import isotropic"),
        ("curvature/wall.py", "from .. import solvers"),
        ("maps/fit.py", "try:\n    import icm.optim.solved as s\nexcept ImportError: ..."),
        ("norms/norm.py", "from icm.measure import fit"),
        ("measure/fit.py", "from icm.optim import solved"),
        ("solvers/newton.py", "from icm.norms import norm"),
        ("optim/symo.py", "from icm.theory import claim"),
        ("theory/report.py", "from icm import cli"),
        ("solvers/solution.py", "from icm import plots"),
        ("solvers/solution.py", "def show():\n    import icm.cli"),
        ("sphere/law.py", "def solve():\n    from icm.solvers import newton"),
        ("sphere/law.py", "import typing\nif typing.TYPE_CHECKING:\n    from icm.maps import fit"),
        ("sphere/law.py", "import importlib\nimportlib.import_module('icm.solvers')"),
        ("program/isotropic.py", "class Program:\n    from icm.solvers import newton"),
        ("solvers/newton.py", "from icm import Power"),
        ("arrays.py", "def late():\n    from icm.curvature import power"),
        ("attic/box.py", "import math"),
    ],
)
def test_checker_catches_a_wrong_import(tmp_path, file, text):
    faults = wrong_imports(plant(tmp_path, {**SOUND, file: text}))
    assert len(faults) == 1
    assert file.split(".")[0].split("/")[0] in faults[0]


@pytest.mark.parametrize(
    ("power", "kink"),
    [
        ("from icm.curvature import kink", "from .power import P"),
        ("from . import kink", "from icm.curvature import P"),
        ("import icm.curvature.kink", "if True:\n    from ..curvature.power import P"),
    ],
)
def test_checker_catches_a_circle(tmp_path, power, kink):
    tree = plant(tmp_path, {**SOUND, "curvature/power.py": power, "curvature/kink.py": kink})
    assert "icm.curvature.power" in circle(tree)
    assert "icm.curvature.power" not in circle(
        plant(tmp_path, {"curvature/kink.py": "def f():\n    from .power import P"})
    )


def test_checker_catches_a_long_file(tmp_path):
    tree = plant(tmp_path, {"sphere/law.py": "x = 1\n" * LONGEST, "sphere/powers.py": "\n" * (LONGEST + 1)})
    assert long_files(tree) == [f"icm/sphere/powers.py: {LONGEST + 1} lines"]


@pytest.mark.parametrize(
    "text",
    ["see https://py" + "pi.org/x", "files.python" + "hosted.org", "open('/t" + "mp/x')", "cd /ho" + "me/me"],
)
def test_checker_catches_a_forbidden_word(tmp_path, text):
    (tmp_path / "page.md").write_text(f"docs/home/plan.md and a/tmp/b are fine\n{text}\n", encoding="utf-8")
    faults = forbidden_words(tmp_path)
    assert len(faults) == 1
    assert faults[0].startswith("page.md, line 2")


def test_checker_sees_what_an_import_loads():
    assert loaded_by("import wave", ("wave", "cvxpy")) == ["wave"]
