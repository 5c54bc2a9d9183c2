"""Maps by products against U p(g) Vᵀ from the SVD: every degree, shape, stride, scale, route and precision."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from icm.errors import DtypeError, InputError
from icm.maps.composition import Composition
from icm.maps.polynomial import Precision, apply, apply_coefficients
from icm.maps.routes import Name, Route

MUON = Composition(((3.4445, -4.7750, 2.0315),) * 5)
NEWTON_SCHULZ = Composition(((1.5, -0.5),) * 4)
MIXED = Composition(((2.0, -1.0), (1.875, -1.25, 0.375), (35 / 16, -35 / 16, 21 / 16, -5 / 16), (0.9,)))
HIGH = Composition(
    ((315 / 128, -420 / 128, 378 / 128, -180 / 128, 35 / 128), (693 / 256, -5.0, 4.0, -1.0, 0.25, -0.02))
)
SMOOTH = [MUON, NEWTON_SCHULZ, MIXED, HIGH]

few = settings(max_examples=30)
shapes = st.sampled_from(
    [(1, 1), (1, 7), (7, 1), (3, 3), (40, 70), (70, 40), (2, 5, 9), (3, 9, 5), (2, 3, 8, 8), (0, 4, 5)]
)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_svd(composition: Composition, G: Tensor, scale: Tensor | None = None) -> Tensor:
    """U p(g/s) Vᵀ in float64."""
    G = G.double()
    scale = torch.linalg.matrix_norm(G) if scale is None else scale
    U, g, Vh = torch.linalg.svd(G / scale.where(scale > 0, 1.0)[..., None, None], full_matrices=False)
    return (U * composition(g)[..., None, :]) @ Vh


def error(Q: Tensor, exact: Tensor) -> float:
    """The largest ‖Q − exact‖₂ in units of ‖exact‖₂."""
    size = torch.linalg.matrix_norm(exact, 2)
    return float((torch.linalg.matrix_norm(Q.double() - exact, 2) / size.where(size > 0, 1.0)).max())


@few
@given(
    shape=shapes.filter(math.prod),
    seed=st.integers(0, 2**32 - 1),
    composition=st.sampled_from(SMOOTH),
    route=st.sampled_from(["auto", "direct", "gram"]),
)
def test_float64(shape: tuple[int, ...], seed: int, composition: Composition, route: Name) -> None:
    G = normal(seed, *shape)
    Q = apply(composition, G, route=route)
    assert Q.shape == G.shape
    assert error(Q, by_svd(composition, G)) < 1e-12


@pytest.mark.parametrize("route", ["direct", "gram"])
@pytest.mark.parametrize("degree", [1, 3, 5, 7, 9, 11, 13])
def test_degrees_against_mpmath(degree: int, route: Name) -> None:
    """A 1×1 matrix: p itself, in 30 digits."""
    import mpmath

    c = [(-0.7) ** i / (1 + i) for i in range((degree + 1) // 2)]
    p = Composition((tuple(c), tuple(reversed(c)), (0.5, *c[1:])))
    with mpmath.workdps(30):
        x = mpmath.mpf(0.8125)
        for factor in p.factors:
            x = x * sum(mpmath.mpf(a) * x ** (2 * i) for i, a in enumerate(factor))
        exact = float(x)
    found = apply(p, torch.tensor([[1.625]], dtype=torch.float64), scale=2.0, route=route)
    assert abs(float(found) - exact) < 1e-14


def test_degree_nine_whichever_coefficients_vanish() -> None:
    G = normal(3, 6, 9)
    for c in [(1, 0, 0, 0, 0.5), (1, 2, 0, 0, 0.5), (1, 0, 2, 1e-30, 1e-30), (1, -2, 0.1, 3, 1e-12), (0, 0, 0, 0, 1.0)]:
        p = Composition((tuple(map(float, c)),))
        assert error(apply(p, G, route="direct"), by_svd(p, G)) < 1e-13


@pytest.mark.parametrize("panels", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("chunk", [0, 1, 2])
@pytest.mark.parametrize("segments", [(1, 1, 1, 1, 1), (2, 2, 1), (5,)])
def test_routes_agree(panels: int, chunk: int, segments: tuple[int, ...]) -> None:
    G = normal(5, 3, 20, 33)
    Q = apply(MUON, G, route=Route(segments, chunk, panels))
    assert error(Q, by_svd(MUON, G)) < 1e-12
    assert torch.equal(Q.mT, apply(MUON, G.mT, route=Route(segments, chunk, panels)))


@few
@given(seed=st.integers(0, 2**32 - 1), shape=shapes.filter(math.prod))
def test_strides_do_not_matter(seed: int, shape: tuple[int, ...]) -> None:
    G = normal(seed, *shape)
    rows = G.mT.contiguous().mT
    step = torch.zeros(*shape[:-1], 2 * shape[-1], dtype=G.dtype)[..., ::2]
    step.copy_(G)
    exact = by_svd(MUON, G)
    for other in (rows, step, G.requires_grad_()):
        Q = apply(MUON, other)
        assert not Q.requires_grad
        assert error(Q, exact) < 1e-12


@pytest.mark.parametrize(
    ("dtype", "size", "bound"),
    [
        (torch.float64, 1e150, 1e-13),
        (torch.float64, 1e-150, 1e-13),
        (torch.float64, 1e307, 1e-13),
        (torch.float64, 1e-300, 1e-13),
        (torch.float32, 1e30, 1e-5),
        (torch.float32, 1e-30, 1e-5),
        (torch.float32, 1e38, 1e-5),
        (torch.float32, 1e20, 1e-5),
        (torch.float32, 1e-20, 1e-5),
        (torch.bfloat16, 1e38, 0.1),
        (torch.bfloat16, 1e-37, 0.1),
        (torch.float16, 3e4, 0.02),
        (torch.float16, 1e-4, 0.02),
    ],
)
@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (3, 16, 16)])
def test_any_size(dtype: torch.dtype, size: float, bound: float, shape: tuple[int, ...]) -> None:
    """Entries spread over [−size, size]: neither overflow nor underflow, with ‖G‖_F and with a scale handed over."""
    G = (2 * torch.rand(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64) - 1) * size
    G = G.to(dtype)
    whole = G.double()
    scale = torch.linalg.matrix_norm(whole / size, 2) * size * 1.1
    assert error(apply(MUON, G), by_svd(MUON, whole / size)) < bound
    if float(scale.max()) <= torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).max:
        assert error(apply(MUON, G, scale=scale), by_svd(MUON, whole / size, scale / size)) < bound


def test_scales_of_a_batch() -> None:
    G = normal(11, 2, 3, 6, 4)
    scale = torch.linalg.matrix_norm(G, 2) * torch.tensor([1.0, 1.5, 4.0], dtype=torch.float64)
    assert error(apply(MUON, G, scale), by_svd(MUON, G, scale)) < 1e-12
    one = scale.amax()
    exact = by_svd(MUON, G, one.expand(2, 3))
    for same in (one, float(one), one.float().double().new_tensor([float(one)] * 3)):
        assert error(apply(MUON, G, same), exact) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("route", ["direct", "gram"])
def test_zeros_in_a_batch(dtype: torch.dtype, route: Name) -> None:
    G = normal(2, 3, 8, 16, dtype=dtype)
    G[1] = 0
    for scale in (None, torch.tensor([8.0, 0.0, 8.0])):
        Q = apply(MUON, G, scale=scale, route=route)
        assert bool(torch.isfinite(Q).all())
        assert bool((Q[1] == 0).all())
        alone = apply(MUON, G[0], scale=None if scale is None else 8.0, route=route)
        assert error(Q[0], alone.double()) < 50 * torch.finfo(dtype).eps
    assert torch.equal(apply(MUON, torch.zeros(4, 3, dtype=dtype)), torch.zeros(4, 3, dtype=dtype))
    assert apply(MUON, torch.zeros(0, 4, 3, dtype=dtype)).shape == (0, 4, 3)
    assert apply(MUON, torch.zeros(2, 0, 3, dtype=dtype)).shape == (2, 0, 3)


def test_what_is_not_finite_stays_visible() -> None:
    G = normal(2, 3, 8, 16)
    G[1, 0, 0] = math.nan
    Q = apply(MUON, G)
    assert bool(Q[1].isnan().any())
    assert bool(torch.isfinite(Q[[0, 2]]).all())


PRECISIONS: list[tuple[Precision, float]] = [
    ("fp64", 5e-14),
    ("fp32", 1e-5),
    ("tf32", 1e-5),
    ("fp16", 0.02),
    ("bf16", 0.15),
]


@pytest.mark.parametrize("route", ["direct", "gram"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_precision_ladder(dtype: torch.dtype, route: Name) -> None:
    """Each rung is within its bound (p'(0) u = 484 u in float64) and worse than the one above; G's dtype comes back."""
    U, _, Vh = torch.linalg.svd(normal(4, 48, 96), full_matrices=False)
    G = ((U * torch.logspace(0, -2, 48, dtype=torch.float64)) @ Vh).to(dtype)
    exact = by_svd(MUON, G)
    eps = torch.finfo(dtype).eps
    errors = []
    for precision, bound in PRECISIONS:
        Q = apply(MUON, G, precision=precision, route=route)
        assert Q.dtype == dtype
        errors.append(error(Q, exact))
        assert errors[-1] < bound + eps
    if dtype == torch.float64:
        assert errors[0] < errors[1] < errors[3] < errors[4]


def test_float16_is_rounded_where_it_is_stored() -> None:
    """One cubic step, written out: XXᵀ rounded, then the result; float16's own rounding, in float32 arithmetic."""
    G = normal(6, 8, 16, dtype=torch.float32)
    X = (8 * G / G.norm()).half().float()
    R = (X @ X.T).half().float()
    Q = (1.5 / 8 * X - 0.5 / 512 * R @ X).half().float()
    found = apply(Composition(((1.5, -0.5),)), G, precision="fp16", route="direct")
    assert float((found - Q).abs().max()) <= 2.0**-12 * float(Q.abs().max())
    assert torch.equal(found, found.half().float())


def test_muon() -> None:
    """torch.optim.Muon's own function in the same bfloat16: as close to the polynomial; on R within three times."""
    from torch.optim._muon import _zeropower_via_newtonschulz as muon

    for seed, shape in enumerate([(64, 64), (48, 96), (96, 48)]):
        G = normal(seed, *shape, dtype=torch.float32)
        exact = by_svd(MUON, G)
        theirs = error(muon(G.clone(), (3.4445, -4.7750, 2.0315), 5, 1e-7), exact)
        assert error(apply(MUON, G, precision="bf16", route="direct"), exact) < 1.25 * theirs
        assert error(apply(MUON, G, precision="bf16", route="gram"), exact) < 3 * theirs


@pytest.fixture(params=[False, True], ids=["looking", "traced"])
def traced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways that coefficients in a tensor are applied: read, and left where they are, as under torch.compile."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: request.param)
    return request.param


@pytest.mark.parametrize("route", ["direct", "gram"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_coefficients_as_a_tensor(dtype: torch.dtype, route: Name, traced: bool) -> None:
    """The same map; lower degrees are zeros at the end of a row."""
    rows = torch.zeros(4, 6, dtype=torch.float64)
    p = Composition(((2.0, -1.0), (1.875, -1.25, 0.375), (35 / 16, -35 / 16, 21 / 16, -5 / 16), HIGH.factors[1]))
    for row, factor in zip(rows, p.factors, strict=True):
        row[: len(factor)] = torch.tensor(factor, dtype=torch.float64)
    G = normal(9, 2, 12, 30, dtype=dtype)
    bound = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    assert error(apply_coefficients(rows, G, route=route), by_svd(p, G)) < bound
    if dtype == torch.float32:
        assert error(apply_coefficients(rows, G, precision="fp16", route=route), by_svd(p, G)) < 0.01


@pytest.mark.parametrize("route", ["direct", "gram"])
@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
def test_each_matrix_of_a_stack_has_its_own_coefficients(precision: Precision, route: Name, traced: bool) -> None:
    own = [
        MUON,
        Composition(((1.875, -1.25, 0.375),) * 5),
        Composition(((3.0, -3.2, 1.2), *((1.5, -0.5, 0.0),) * 4)),
        Composition(((0.5, 0.25, 0.0), *((1.0, 0.0, 0.0),) * 4)),
    ]
    G = normal(3, 2, 2, 24, 40, dtype=torch.float64 if precision == "fp64" else torch.float32)
    rows = torch.tensor([p.factors for p in own], dtype=torch.float64).reshape(2, 2, 5, 3)
    scale = torch.linalg.matrix_norm(G) * torch.tensor([[1.0, 1.1], [1.2, 1.3]])
    Q = apply_coefficients(rows, G, scale, precision, route)
    bound = {"fp64": 1e-12, "fp32": 3e-5, "fp16": 0.03, "bf16": 0.2}[precision]
    for i, p in enumerate(own):
        exact = by_svd(p, G.reshape(4, 24, 40)[i], scale.reshape(4)[i])
        assert error(Q.reshape(4, 24, 40)[i], exact) < bound


@pytest.mark.parametrize("precision", ["fp64", "bf16", "fp16"])
@pytest.mark.parametrize("shape", [(20, 30), (3, 30, 20), (2, 2, 16, 16)])
def test_the_scale_that_the_first_product_tells(precision: Precision, shape: tuple[int, ...], traced: bool) -> None:
    """s = ‖GGᵀ‖_F^{1/2}, from the SVD: on stacks, tall or wide, at any size of G."""
    G = normal(4, *shape, dtype=torch.float64)
    s = torch.linalg.svdvals(G).pow(4).sum(-1).pow(0.25)
    p = Composition(((2.0, -1.2, 0.2), (1.5, -0.5)))
    rows = torch.tensor([[2.0, -1.2, 0.2], [1.5, -0.5, 0.0]], dtype=torch.float64)
    exact = by_svd(p, G, s)
    bound = {"fp64": 1e-12, "fp16": 0.005, "bf16": 0.04}[precision]
    for size in (1.0, 2.0**60, 2.0**-60):
        for Q in (apply(p, size * G, "gram", precision), apply_coefficients(rows, size * G, "gram", precision)):
            assert error(Q, exact) < bound
    assert bool((apply(p, torch.zeros(shape), "gram") == 0).all())


def test_a_wrong_coefficient_is_seen() -> None:
    """Meta: these tests would notice the seventh digit of any coefficient."""
    G = normal(1, 20, 33)
    exact = by_svd(MIXED, G)
    for t, factor in enumerate(MIXED.factors):
        for i in range(len(factor)):
            factors = [list(f) for f in MIXED.factors]
            factors[t][i] *= 1 + 1e-6
            for route in ("direct", "gram"):
                assert error(apply(Composition(tuple(map(tuple, factors))), G, route=route), exact) > 1e-12


def test_refusals() -> None:
    G = torch.ones(3, 4)
    with pytest.raises((InputError, TypeError), match="bf8"):  # the shape checks of these tests look at Literals too
        apply(MUON, G, precision="bf8")  # pyright: ignore
    with pytest.raises((InputError, TypeError), match="fast"):
        apply(MUON, G, route="fast")  # pyright: ignore
    with pytest.raises(InputError, match="segments"):
        apply(MUON, G, route=Route((2, 2)))
    with pytest.raises(InputError, match="scale of shape"):
        apply(MUON, torch.ones(2, 3, 4), scale=torch.ones(3))
    with pytest.raises(InputError, match="T ≥ 1"):
        apply_coefficients(torch.ones(3, 1), G)
    with pytest.raises(DtypeError, match="float8"):
        apply(MUON, G.to(torch.float8_e4m3fn))


COMPILED = """
import torch
from icm.maps.composition import Composition
from icm.maps.polar_factor import orthogonalize
from icm.maps.polynomial import apply, apply_coefficients

def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

def graphs(function, *calls):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(function, fullgraph=True, backend={backend!r}, dynamic=False)
    worst = max(float((compiled(*call) - function(*call)).abs().max()) for call in calls)
    counters = torch._dynamo.utils.counters
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()), worst

quintic = (3.4445, -4.7750, 2.0315)
muon = Composition((quintic,) * 5)
for precision, shape in [(None, (3, 16, 40)), ("bf16", (40, 16)), ("fp16", (2, 16, 16))]:
    print(*graphs(lambda G: apply(muon, G, precision=precision), *[(normal(s, *shape),) for s in range(3)]))
G = normal(0, 16, 40)
rows = [torch.tensor([c] * 4) for c in (quintic, (1.875, -1.25, 0.375), (2.0, -1.5, 0.5))]
print(*graphs(apply_coefficients, *[(c, G) for c in rows]))
print(*graphs(lambda c, G: apply_coefficients(c, G, precision="bf16", route="direct"), *[(c, G) for c in rows]))
stack = normal(0, 3, 16, 40)
print(*graphs(apply_coefficients, *[(torch.stack([*rows[i:], *rows[:i]]), stack) for i in range(3)]))
print(*graphs(orthogonalize, *[(normal(s, 3, 16, 40) + 3,) for s in range(3)]))
"""


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_compiled(backend: str) -> None:
    """One graph for any number of matrices of a shape, none for new coefficients in a tensor; the same values. In a
    process of its own: Dynamo does not trace through the shape checks that tests install.
    """
    script = [sys.executable, "-c", COMPILED.replace("{backend!r}", repr(backend))]
    run = subprocess.run(script, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    bounds = [1e-5, 0.05, 0.01, 3e-5, 0.05, 3e-5, 3e-5]  # the last four are done otherwise when traced
    assert len(lines) == len(bounds)
    for (graphs, breaks, worst), bound in zip(lines, bounds, strict=True):
        assert int(graphs) == 1
        assert int(breaks) == 0
        assert float(worst) < bound


@pytest.mark.gpu
class TestCuda:
    def test_a_graph_replays(self) -> None:
        G = normal(0, 4, 64, 128, dtype=torch.float32).cuda()
        apply(MUON, G, precision="bf16")  # warm-up
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            Q = apply(MUON, G, precision="bf16")
        G.copy_(normal(1, 4, 64, 128, dtype=torch.float32))
        graph.replay()
        assert error(Q.cpu(), by_svd(MUON, G.cpu())) < 0.1

    def test_nothing_waits(self) -> None:
        G = normal(0, 4, 64, 128, dtype=torch.float32).cuda()
        scale = torch.linalg.matrix_norm(G, 2)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for precision in ("bf16", "fp16", "tf32", "fp32"):
                apply(MUON, G, scale, precision=precision)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_tf32_is_put_back(self) -> None:
        before = torch.backends.cuda.matmul.fp32_precision
        G = normal(0, 64, 128, dtype=torch.float32).cuda()
        exact = by_svd(MUON, G.cpu())
        assert error(apply(MUON, G, precision="fp32").cpu(), exact) < 1e-5
        assert error(apply(MUON, G, precision="tf32").cpu(), exact) < 2e-2
        assert torch.backends.cuda.matmul.fp32_precision == before
