"""The demonstration: real gradients of a small transformer, and the updates that different curvatures ask for."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from icm.errors import FileError, InputError
from icm.paths import json_text
from icm.plots import plot_overview, plot_spectra
from icm.solvers import Comparison, compare
from icm.tables import as_json

CURVATURES = ("r^2", "r^2.39", "r^3", "r^6", "exp(0.01)")
BYTES = 2_000_000  # of the standard library's sources; the training reads a fraction of them
EXAMPLE = "small_lm.py"

Progress = Callable[[int, int, str], None]


def run(
    out: str | Path,
    steps: int = 60,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    config: Any = None,
    curvatures: tuple[str, ...] = CURVATURES,
) -> dict[str, Any]:
    """Train the small transformer, solve its gradients for each curvature, write pictures and report.json into `out`.

    The network reads Python's own sources for `steps` steps. The gradient of every attention and MLP matrix, in
    float64 and scaled to ‖G‖_F = 1, is compared under `curvatures`. Returns the report: plain numbers, the same for
    the same seed, Python and torch on the same machine. The folder is made if need be and its files replaced once all
    of them are ready. `progress(done, total, what)` hears of every step; `config` is the example's Config.

    Raises InputError for steps < 0, FileError where `out` cannot be written or the example is not installed.
    """
    out = check_folder(Path(out))
    if steps < 0:
        raise InputError(f"steps={steps}: the network trains for 0 steps or more")
    example = load_example()
    model = example.SmallLM(config or example.Config(layers=2, context=64), seed=seed)
    names = list(example.matrices(model))
    kinds = {name.rsplit(".", 1)[-1]: name for name in names}  # of each kind the last, deepest matrix
    total = steps + len(names) + len(kinds) + 1
    tell = progress or (lambda done, total, what: None)

    tell(0, total, "reading Python's sources")
    data, validation = example.corpus(BYTES), example.corpus(BYTES // 10, validation=True)
    bits_before = example.bits_per_byte(model, validation, count=4)
    example.train(
        model, data, steps, seed=seed,
        progress=lambda step, loss: tell(step + 1, total, f"training, loss {loss:.2f}"),
    )  # fmt: skip
    bits_after = example.bits_per_byte(model, validation, count=4)
    comparisons: dict[str, Comparison] = {}
    for name, G in example.gradients(model, data, seed=seed).items():
        tell(steps + len(comparisons), total, f"solving {name}")
        G = G.double()
        comparisons[name] = compare(G / G.norm().clamp_min(1e-300), list(curvatures))

    pictures = {"overview.png": "all", **{f"{kind}.png": kinds[kind] for kind in kinds}}
    report = {
        "seed": seed,
        "steps": steps,
        "model": dict(vars(model.config)),
        "bits_per_byte": {"before": bits_before, "after": bits_after},
        "curvatures": list(curvatures),
        "matrices": {name: as_json(comparison, spectra=False) for name, comparison in comparisons.items()},
        "pictures": list(pictures),
    }
    parts = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for index, (picture, name) in enumerate(pictures.items()):
            tell(steps + len(names) + index, total, f"drawing {picture}")
            if name == "all":
                panels = {kinds[kind]: list(comparisons[kinds[kind]].solutions) for kind in kinds}
                title = f"What each curvature makes of a gradient, after {steps} training steps"
                plot_overview(panels, parts / picture, title=title)
            else:
                m, n = report["matrices"][name]["shape"]
                plot_spectra(list(comparisons[name].solutions), parts / picture, title=f"{name}: {m} × {n}")
        (parts / "report.json").write_text(json_text(report) + "\n", encoding="utf-8")
        out.mkdir(exist_ok=True)
        for part in sorted(parts.iterdir()):
            os.replace(part, out / part.name)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    tell(total, total, "done")
    return report


def check_folder(out: Path) -> Path:
    """`out`, resolved, if it is a folder that can be written or can be made; FileError otherwise."""
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise FileError(f"{out} is a file, and the demo writes a folder; name another")
    if not out.parent.is_dir():
        raise FileError(f"{out}: there is no folder {out.parent} to make it in; create that first")
    for folder in (out.parent, out):
        if folder.exists() and not os.access(folder, os.W_OK):
            raise FileError(f"{out}: the folder {folder} is read-only; write somewhere else")
    return out


def load_example() -> ModuleType:
    """examples/small_lm.py as a module: the copy inside an installed package, else the one of a source checkout."""
    package = Path(__file__).resolve().parent
    places = package / "examples" / EXAMPLE, package.parent / "examples" / EXAMPLE
    for place in places:
        if place.is_file():
            name = "icm_example_small_lm"
            spec = importlib.util.spec_from_file_location(name, place)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # dataclasses look their module up by name
            spec.loader.exec_module(module)
            return module
    raise FileError(f"the demo's network is neither at {places[0]} nor at {places[1]}; install the package again")
