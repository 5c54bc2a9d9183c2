"""Set-up shared by all tests: shape checks on, one thread per worker, seeds that depend on the test alone."""

from __future__ import annotations

import os
import sys
import types
import zlib

IN_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IN_WORKER:
    # Read when the numerical libraries load, so set before torch and NumPy are imported.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"

import beartype
import hypothesis
import jaxtyping
import pytest
import torch

if any(name == "icm" or name.startswith("icm.") for name in sys.modules):
    raise RuntimeError("icm was imported before its shape checks were installed; look at plugins and -p options")
# From here on, importing icm makes beartype check its annotations, jaxtyping's shapes among them, at every call.
# The hook takes a checker by its import path; ours also accepts an int where a float is asked for, as PEP 484 does.
checker = types.ModuleType("icm_checker")
checker.check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # pyright: ignore
sys.modules["icm_checker"] = checker
jaxtyping.install_import_hook("icm", "icm_checker.check")

if IN_WORKER:
    torch.set_num_threads(1)

SETTINGS = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow],
}
hypothesis.settings.register_profile("icm", **SETTINGS)
hypothesis.settings.register_profile("icm-ci", derandomize=True, **SETTINGS)
hypothesis.settings.load_profile("icm-ci" if os.environ.get("CI") else "icm")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> torch.Generator:
    """A CPU generator seeded by the test's own name: the same numbers alone, in any order, on any worker."""
    return torch.Generator().manual_seed(zlib.crc32(request.node.nodeid.encode()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
