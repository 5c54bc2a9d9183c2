"""The project's bars on their full grids, minutes rather than seconds; a small grid of each runs every time."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path

import pytest
import torch

import icm
from benchmarks import __main__ as command
from benchmarks import exactness, machine, maps, markdown, peers, solutions, solve
from benchmarks.timing import Timing, interleaved
from benchmarks.work import Work, newton_schulz_flops
from icm.sphere import expect


def test_gaps_of_small_dimensions() -> None:
    """gap ≤ 1e−10 |value| for every spectrum and exponent > 1, n ≤ 8."""
    rows = list(solutions.gaps((1, 2, 3, 8)))
    assert len(rows) == 36
    assert [row for row in rows if not row["ok"]] == []


def test_concentration() -> None:
    """n = 1024, H = r³: R spreads by about α/srank over a Marchenko–Pastur spectrum, so Q* is G to 1 − cos of 5e−7."""
    generator = torch.Generator().manual_seed(0)
    n, G = 1024, torch.randn(1024, 1024, generator=generator, dtype=torch.float64)
    solution = icm.solve(G, "r^3")
    e = expect(icm.Power(3.0), solution.sigma, n)
    lam = solution.sigma.square()
    stable_rank = float(lam.sum() / lam[0])
    spread = float(e.weight[0] / e.weight[-1] - 1)
    assert spread == pytest.approx(1 / stable_rank, rel=0.01)
    cosine = float((solution.sigma @ solution.g) / (solution.sigma.norm() * solution.g.norm()))
    assert 4e-7 < 1 - cosine < 6e-7


@pytest.mark.long
def test_exactness_on_the_full_grid(tmp_path: Path) -> None:
    """mean and slopes within 1e−12 of 50 digits (5e−12 at n = 4096) for every n, exponent and spectrum."""
    assert exactness.main(tmp_path / "exactness.json", quick=False) == 0


@pytest.mark.long
@pytest.mark.parametrize("part", ["gaps", "matrices", "reference", "alignment", "invariance"])
def test_solutions_on_the_full_grid(part: str) -> None:
    """Every row of the benchmark `solutions` inside its bar."""
    rows = list(getattr(solutions, part)())
    assert rows
    assert [row for row in rows if not row["ok"]] == []


# How things are timed.


def test_runs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first call each, then round after round; a run beyond its budget takes part in the first rounds only."""
    calls: list[str] = []
    lengths = {"a": 1.0, "b": 10.0}

    def seconds(run, count, device):
        run()
        return lengths[calls[-1]]

    monkeypatch.setattr("benchmarks.timing._seconds", seconds)
    times = interleaved({name: lambda name=name: calls.append(name) for name in lengths}, 4, budget=25.0)
    assert "".join(calls) == "ab" + "ab" + "ab" + "a" + "a"
    assert {name: len(t.values) for name, t in times.items()} == {"a": 4, "b": 2}
    calls.clear()
    times = interleaved({"b": lambda: calls.append("b")}, 4, budget=5.0)
    assert (calls, times["b"].values) == (["b"], (10.0,))  # the first call was all there was time for


def test_what_a_run_returns_can_be_looked_at() -> None:
    seen: dict[str, int] = {}
    interleaved({"a": lambda: 7}, 2, first=lambda name, run: seen.update({name: run()}))
    assert seen == {"a": 7}


def test_median_quartiles_and_ratios() -> None:
    t = Timing((4.0, 1.0, 3.0, 2.0, 5.0))
    assert (t.median, t.quartiles) == (3.0, (2.0, 4.0))
    assert Timing((2.0, 9.0, 3.0)).over(t).values == (0.5, 9.0, 1.0)
    assert t.over(Timing((2.0,))).values == (2.0,)  # rounds that both took part in
    assert Timing((2.0,)).quartiles == (2.0, 2.0)
    assert t.median == statistics.median(t.values)


def test_work_is_counted() -> None:
    """Products by their operations, operands and results by their bytes; a transpose and a slice cost nothing."""
    A, B = torch.ones(3, 5), torch.ones(5, 7)
    with Work() as work:
        torch.mm(A, B)
    assert (work.flops, work.bytes) == (2 * 3 * 5 * 7, 4 * (15 + 35 + 21))
    out = torch.empty(3, 7)
    with Work() as work:
        torch.mm(A, B, out=out)
    assert (work.flops, work.bytes) == (2 * 3 * 5 * 7, 4 * (15 + 35 + 21))
    with Work() as work:
        assert A.mT[1:].shape == (4, 3)
    assert (work.flops, work.bytes) == (0, 0)
    with Work() as work:
        peers.newton_schulz(torch.ones(2, 6, 4), torch.float32)
    assert work.flops == newton_schulz_flops(6, 4, batch=2) == 2 * 5 * (4 * 4 * 4 * 6 + 2 * 4**3)


def test_limits_of_this_machine() -> None:
    found = machine.limits(quick=True)
    assert set(found.flops) == {"bf16", "fp32", "fp64"}
    assert all(math.isfinite(rate) and rate > 0 for rate in (*found.flops.values(), found.bandwidth))
    assert machine.machine()["torch"] == torch.__version__


# Who is compared.


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (3, 24, 40), (3, 40, 24)])
def test_yardstick_is_muon(shape: tuple[int, ...], rng: torch.Generator) -> None:
    """Five steps give U p(g/‖G‖) Vᵀ with Muon's p in float64, and what torch.optim.Muon gives in bf16."""
    G = torch.randn(*shape, generator=rng, dtype=torch.float64)
    U, g, Vh = torch.linalg.svd(G, full_matrices=False)
    p = peers.muon(g / torch.linalg.vector_norm(g, dim=-1, keepdim=True))
    exact = (U * p.unsqueeze(-2)) @ Vh
    torch.testing.assert_close(peers.newton_schulz(G, torch.float64), exact, atol=1e-12, rtol=0)
    loop = next(peer for peer in peers.field("bf16").peers if peer.name == peers.LOOP)
    bf16 = peers.newton_schulz(G.float(), torch.bfloat16)
    scale = torch.linalg.matrix_norm(exact)
    muon = loop.run(G.float()) if G.ndim == 2 else torch.stack(loop.run(G.float()))
    assert bool((torch.linalg.matrix_norm(muon.double() - exact) < 0.03 * scale).all())
    assert bool((torch.linalg.matrix_norm(bf16.double() - exact) < 0.03 * scale).all())


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (3, 24, 40)])
def test_everyone_approximates_the_polar_factor(precision: str, shape: tuple[int, ...], rng: torch.Generator) -> None:
    """On a well conditioned G: by decompositions to rounding, by five steps to what their coefficients allow."""
    G = torch.randn(*shape, generator=rng)
    U, _, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    for peer in peers.field(precision).peers:
        Q = peer.run(G.clone())
        Q = torch.stack(Q) if isinstance(Q, list) else Q
        assert Q.shape == G.shape
        error = torch.linalg.matrix_norm(Q.double() - U @ Vh) / math.sqrt(24)
        assert float(error.max()) < (0.35 if peer.products else 1e-4), peer.name


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not installed is left out with a word, and the others run."""
    real = peers.importlib.import_module

    def without(name: str):
        if name.startswith("heavyball"):
            raise ModuleNotFoundError("No module named 'heavyball'")
        return real(name)

    monkeypatch.setattr(peers.importlib, "import_module", without)
    field = peers.field("bf16")
    assert "heavyball: No module named 'heavyball'" in field.missing
    assert peers.LOOP in [peer.name for peer in field.peers]


# What is made of it.


def made_up(**changes: object) -> list[dict[str, object]]:
    """Rows of this project and of one peer at 256 × 1024, as `maps.measure` returns them."""
    row = {"m": 256, "n": 1024, "batch": 1, "precision": "bf16", "polynomial": 0.1, "fastest": "other"}
    other = row | {"what": "other", "ratio": 1.0, "loop": 1.0, "error": 0.11, "polar_express": True}
    return [other, other | {"what": peers.OURS, "ratio": 1.0, "loop": 0.6} | changes]


@pytest.mark.parametrize(
    ("changes", "ok"),
    [({}, True), ({"ratio": 1.06}, False), ({"error": 0.115}, True), ({"error": 0.117}, False), ({"ratio": 0.1}, True)],
)
def test_bar_of_single_matrices(changes: dict[str, float], ok: bool) -> None:
    """1.05 × the fastest peer, at the accuracy of five Polar Express steps."""
    (bar,) = maps.bars(made_up(**changes), "cpu")
    assert (bar["bar"], bar["ok"]) == (1.05, ok)


@pytest.mark.parametrize(("device", "loop", "ok"), [("cpu", 0.69, True), ("cpu", 0.71, False), ("cuda", 0.71, False)])
def test_bar_of_batches(device: str, loop: float, ok: bool) -> None:
    rows = [row | {"batch": 64} for row in made_up(loop=loop)]
    (bar,) = maps.bars(rows, device)
    assert (bar["figure"], bar["ok"]) == (loop, ok)
    assert bar["bar"] == 0.7  # of 256 × 1024, on every device
    assert maps.BATCHED[256, 256] == {"cpu": 1.0, "cuda": 0.5}


def test_cases_leave_out_what_takes_minutes() -> None:
    """On a CPU 4096² singly, 1024 × 4096 up to 8; on a GPU everything."""
    batches = {(m, n): max(c.batch for c in maps.cases() if (c.m, c.n) == (m, n)) for m, n in maps.SHAPES}
    assert batches == {(256, 256): 64, (256, 1024): 64, (1024, 1024): 64, (1024, 4096): 8, (4096, 4096): 1}
    assert len(maps.cases("cuda")) == len(maps.SHAPES) * 3 * 3


def test_a_solve_that_is_fast_but_wrong_misses_its_bar() -> None:
    rows = [{"ratio": 1.0, "error": error, "tol": 0.02} for error in (0.019, 0.021)]
    assert [solve.verdict(row, 1.3)["ok"] for row in rows] == [True, False]
    assert solve.verdict({"ratio": 1.31, "error": 0.0, "tol": 0.02}, 1.3)["ok"] is False


def test_page_keeps_one_section_per_machine(tmp_path: Path) -> None:
    """A section is replaced by a new one of its name, and others stay; what surrounds them does too."""
    page = tmp_path / "speed.md"
    page.write_text(f"# Speed\n\n{markdown.FIRST}\n{markdown.LAST}end\n")
    for name, text in (("one", "a"), ("two", "b"), ("one", "c")):
        markdown.keep(name, f"## {name}\n\n{text}\n", page)
    assert page.read_text() == f"# Speed\n\n{markdown.FIRST}\n## one\n\nc\n\n## two\n\nb\n\n{markdown.LAST}end\n"


def test_tables_fit_the_page() -> None:
    """The longest names and numbers stay within 120 columns."""
    row = {"m": 4096, "n": 4096, "batch": 64, "what": "pytorch_optimizer, PE, Gram", "seconds": 88.0, "ratio": 10.0}
    row |= {"ratio_quartiles": (10.0, 11.0), "flops": 1e14, "of_peak": 1.0, "bytes": 1e11, "of_bandwidth": 1.5}
    row |= {"error": 1.234e-6, "map": 1.234e-6, "drifted": 1.234e-6, "precision": "bf16", "H": "0.5*r^2 + 100*kink(1)"}
    tables = [markdown.polar([row]), markdown.solving([row | {"what": "schedule / five steps"}])]
    assert max(len(line) for table in tables for line in table.splitlines()) <= 120


def test_maps_and_solve_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON with the machine beside the figures, and the tables."""
    monkeypatch.setattr(maps, "SHAPES", ((32, 48),))
    monkeypatch.setattr(solve, "_SIZES", ((32, 48, 1),))
    monkeypatch.setattr(solve, "CURVATURES", {"quadratic and quartic": "r^2 + r^4"})
    monkeypatch.setitem(solve.TOLERANCES, "fp32", 1e-2)  # compiled in a moment
    page = tmp_path / "page.md"
    page.write_text(f"# Speed\n\n{markdown.FIRST}\n{markdown.LAST}")
    monkeypatch.setattr(markdown, "PAGE", page)
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    options = ["--quick", "--device", "cpu", "--out", str(tmp_path), "--keep", "Two cores, old"]
    command.main(["maps", "solve", *options])
    found = {part: json.loads((tmp_path / f"{part}.json").read_text()) for part in ("maps", "solve")}
    assert found["maps"]["machine"]["torch"] == torch.__version__
    rows = found["maps"]["figures"]["rows"]
    assert {row["batch"] for row in rows} == {1, 8, 64}
    assert all(row["seconds"] > 0 and row["error"] < 0.5 for row in rows)
    svd = [row for row in rows if row["what"] == "svd"]
    assert svd
    assert all(row["error"] < 1e-4 and row["flops"] is None for row in svd)  # decompositions are not counted
    assert {row["what"] for row in found["solve"]["figures"]["rows"]} >= {"solve / svd", "solve / eigh"}
    text = (tmp_path / "speed.md").read_text()
    assert re.search(r"\*\*64 × 32 × 48\*\*[ |]+\n(\| .*\n)*\| torch.optim.Muon, a loop \|", text)
    assert "solve / svd" in text
    assert max(map(len, text.splitlines())) <= 120
    assert text.strip() in page.read_text()
    kept = json.loads((tmp_path / "solve-two-cores-old.json").read_text())
    assert kept["figures"] == found["solve"]["figures"]


def test_command_refuses_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["mops", "--out", str(tmp_path)])
    assert "unknown part mops" in capsys.readouterr().err
