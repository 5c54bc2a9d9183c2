"""Tables: what is interpolated, where a kink is forced, what is refused and by which words, what is projected."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from icm.curvature import Curvature, Kink, Power, Sum, Tabulated, Wall, parse
from icm.errors import CurvatureError, DtypeError, MissingPackageError
from tests.oracles import tensor, worst

NAN, INF = math.nan, math.inf


# --- interpolation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radii", [(1.0,), (1.0, 2.0, 3.0), (0.1, 0.2, 3.0, 50.0), tuple(np.logspace(-3, 3, 50))])
def test_quadratics_are_reproduced(radii: tuple[float, ...]) -> None:
    """Points of 3r² give 3r², its slope and its second derivative, up to the last radius."""
    x = tensor(*radii)
    H, r = Tabulated(x, 3 * x**2), torch.linspace(1e-4, 1 - 1e-12, 1001, dtype=torch.float64) * radii[-1]
    assert worst(H(r), 3 * r**2) < 1e-14
    assert worst(H.slope(r), 6 * r) < 1e-14
    assert worst(H.second(r), torch.full_like(r, 6)) < 1e-12
    assert H.kinks == ()


def test_smooth_functions_are_approached() -> None:
    """r³ and e^r − 1 − r: the error of the values falls by 8 or more, of the slopes by 4, where the spacing halves."""
    r = torch.linspace(0.3, 2.9, 1001, dtype=torch.float64)
    for f, slope in ((lambda x: x**3, lambda x: 3 * x**2), (lambda x: torch.expm1(x) - x, torch.expm1)):
        errors = []
        for count in (30, 60, 120):
            x = torch.linspace(0, 3, count + 1, dtype=torch.float64)
            H = Tabulated(x, f(x))
            errors.append((float((H(r) - f(r)).abs().amax()), float((H.slope(r) - slope(r)).abs().amax())))
        for (value, first), (finer, second) in pairwise(errors):
            assert finer < value / 7
            assert second < first / 3.5


def test_kinks_only_where_forced() -> None:
    """Two straight runs meet in a kink; one beside curved intervals in none; at 0 it has a slope."""
    lines = Tabulated((1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 2.0, 3.0, 5.0, 7.0))
    assert lines.hinges == ((0.0, 1.0, 0.0), (3.0, 1.0, 0.0))
    assert (lines.kinks, lines.initial_slope) == (((3.0, 1.0),), 1.0)
    run = Tabulated((1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 3.0, 5.0))
    assert (run.kinks, run.initial_slope) == ((), 1.0)
    curved = Tabulated((1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 3.0, 5.0, 7.0, 10.0))
    assert (curved.kinks, curved.initial_slope) == ((), 0.0)
    flat = Tabulated((1.0, 2.0, 3.0), (0.0, 1.0, 2.0))
    assert flat.hinges == ((1.0, 1.0, 0.0),)
    assert flat(tensor(0.5, 1.0, 4.0)).tolist() == [0.0, 0.0, 3.0]
    assert Tabulated((1.0, 2.0), (0.0, 1.0)).hinges == ((1.0, 0.0, 2.0), (2.0, 0.0, -2.0))
    assert Tabulated((1.0, 2.0), (0.0, 0.0)).hinges == ()


@pytest.mark.parametrize("a", [1.0, 0.1, 1 / 3, 7e5])
def test_rounded_lines_stay_lines(a: float) -> None:
    """Lines through radii that are no dyadic numbers, dilated and multiplied, have one kink and not a hundred."""
    x = torch.arange(1, 41, dtype=torch.float64) / 10 * a
    H = 0.3 * Tabulated(x, Power(1.0)(x) + Kink(2.05 * a)(x)).dilate(1.7)
    assert len(H.kinks) == 0  # the kink lies between two points, which round it
    assert len(H.hinges) <= 4
    with_point = 0.3 * Tabulated(x, Power(1.0)(x) + Kink(float(x[19]))(x)).dilate(1.7)
    assert len(with_point.hinges) == 2
    assert with_point.kinks[0][1] == pytest.approx(0.3 * 1.7, rel=1e-12)


def test_beyond_the_last_radius() -> None:
    """H goes on as the line of its last slope; a wall or a power bounds the program."""
    H = Tabulated((1.0, 2.0), (1.0, 4.0))
    assert H(tensor(2.0, 5.0, 1e300)).tolist() == [4.0, 16.0, 4e300]
    assert (H.recession_slope, (H + Wall(2.0)).recession_slope, (H + Power(2.0)).recession_slope) == (4.0, INF, INF)
    assert H.radius_at_slope(tensor(4.0)).tolist() == [INF]
    assert H.radius_at_chord(tensor(4.0)).tolist() == [INF]
    assert (1e10 * H).radius_at_slope(tensor(4e10)).tolist() == [INF]  # where values overflow in the search
    assert (H + Wall(3.0)).radius_at_chord(tensor(4.0)).tolist() == [3.0]


def test_points_in_any_form() -> None:
    """Lists, arrays, float32 tensors and integers, unsorted, with the origin and equal repeats, are one table."""
    H = Tabulated((1.0, 2.0, 3.0), (1.0, 4.0, 9.0))
    for radii, values in (
        ([3, 1, 2], [9, 1, 4]),
        (np.array([2, 3, 1]), np.array([4.0, 9.0, 1.0])),
        (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 4.0, 9.0])),
        ([0.0, 1.0, 2.0, 2.0, 3.0], [0.0, 1.0, 4.0, 4.0, 9.0]),
        ([-0.0, 1.0, 2.0, 3.0], [-0.0, 1.0, 4.0, 9.0]),
    ):
        for project in (False, True):
            again = Tabulated(radii, values, project=project)
            assert (again, hash(again), again.distance) == (H, hash(H), 0.0)
    assert (H.radii, H.values) == ((1.0, 2.0, 3.0), (1.0, 4.0, 9.0))


def test_algebra() -> None:
    """Multiples scale the values, dilations divide the radii, and tables do not merge."""
    H = Tabulated((1.0, 2.0), (1.0, 5.0))
    assert Tabulated((1.0, 2.0), (3.0, 15.0)) == 3 * H
    assert H.dilate(4.0) == Tabulated((0.25, 0.5), (1.0, 5.0))
    assert Sum((H, H)) == H + H
    assert str(2.5 * H) == "tabulated(1, 2.5, 2, 12.5)"
    assert not H.is_superquadratic()
    assert H.is_superquadratic().how == "symbolic"
    assert (0 * H).is_superquadratic()
    with pytest.raises(CurvatureError, match="beyond float64"):
        H.multiply(1e308)


@st.composite
def convex_tables(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Radii and the values there of Σ jumps, some of them 0, at hinges between or on the points."""
    count = draw(st.integers(1, 12))
    steps = draw(st.lists(st.floats(0.01, 3.0), min_size=count, max_size=count))
    rises = draw(st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 10.0)), min_size=count, max_size=count))
    unit = 10.0 ** draw(st.integers(-12, 12))
    radii = [unit * float(x) for x in np.cumsum(steps)]
    slopes = np.cumsum(rises)
    values = np.cumsum([float(slope) * step for slope, step in zip(slopes, steps, strict=True)])
    height = 10.0 ** draw(st.integers(-12, 12))
    return radii, [height * float(v) for v in values]


@settings(max_examples=200)
@given(table=convex_tables())
def test_random_convex_tables(table: tuple[list[float], list[float]]) -> None:
    """The points are met, H is convex and nondecreasing on a fine grid, H'(0+) = 0 unless a straight run starts at 0,
    and the text gives the table back."""
    radii, values = table
    H, x, v = Tabulated(radii, values), tensor(*radii), tensor(*values)
    # Radii carry rounding as values do, and where H leaves 0 it counts for more.
    assert bool(((H(x) - v).abs() <= 1e-13 * (v + x * H.slope(x, side="left"))).all())
    knots = tensor(*(c for c, _, _ in H.hinges))
    share = torch.linspace(0, 1, 64, dtype=torch.float64)
    edges = torch.cat([tensor(0.0), knots, x, 2 * x[-1:]]).unique()
    r = (edges[:-1, None] + edges.diff()[:, None] * share).flatten().unique()
    left, right = H.slope(r, side="left"), H.slope(r)
    assert bool((left <= right).all())
    assert bool((right.diff() >= 0).all())
    assert bool((right[:-1] <= left[1:]).all())
    assert bool((H(r).diff() >= -1e-14 * H(r)[1:]).all())
    chords = [v / x for x, v in zip(radii[:2], values[:2], strict=True)]
    if len(radii) == 1 or chords[1] > chords[0] * (1 + 1e-9):
        assert H.initial_slope == 0.0
    again = parse(str(H))
    assert (again, hash(again)) == (H, hash(H))
    assert torch.equal(again(r), H(r))


def test_kinks_of_random_tables_are_forced() -> None:
    """Without three points on a line there is no kink, wherever the points lie."""
    generator = np.random.default_rng(0)
    for count in (1, 2, 3, 10, 100):
        x = np.cumsum(generator.uniform(0.1, 1.0, count))
        v = np.cumsum(np.diff(x, prepend=0.0) * np.cumsum(generator.uniform(0.1, 1.0, count)))
        H = Tabulated(x, v)
        assert H.kinks == ()
        assert H.initial_slope == 0.0
        assert H(x).tolist() == v.tolist()


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("radii", "values", "words", "radius"),
    [
        ((1, 2, 3), (1, 4, 5), r"\(1, 1\), \(2, 4\) and \(3, 5\) are not convex.*project=True", 2.0),
        ((3, 1, 2), (5, 1, 4), r"\(1, 1\), \(2, 4\) and \(3, 5\) are not convex", 2.0),
        ((1, 2), (1, 1.5), r"\(0, 0\), \(1, 1\) and \(2, 1.5\) are not convex", 1.0),
        ((1, 2, 3, 4), (1, 4, 4.5, 5), r"\(1, 1\), \(2, 4\) and \(4, 5\) are not convex", 2.0),
        ((1, 2, 3), (1, 2 + 1e-11, 3), r"\(1, 1\).*2\.00000000001\).* are not convex|\(0, 0\).*are not convex", 2.0),
        ((1, 2, 3), (1, 4, 3), r"\(2, 4\) and \(3, 3\) decrease.*project=True", 3.0),
        ((1, 2), (1, -2), r"\(2, -2\) has a negative value.*project=True", 2.0),
        ((1, 2, 2), (1, 4, 5), r"\(2, 4\) and \(2, 5\) share a radius and differ.*project=True", 2.0),
        ((0, 1), (0.5, 1), r"\(0, 0.5\) is not at 0, where H\(0\) = 0.*subtract", 0.0),
        ((0, 0, 1), (0, 0.5, 1), r"\(0, 0.5\) is not at 0", 0.0),
    ],
)
def test_values_that_need_a_projection(
    radii: tuple[float, ...], values: tuple[float, ...], words: str, radius: float
) -> None:
    """The offending points are named with their radii and values; a projection repairs them all."""
    with pytest.raises(CurvatureError, match=words) as caught:
        Tabulated(radii, values)
    assert caught.value.radius == radius
    assert Tabulated(radii, values, project=True).distance > 0


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize(
    ("radii", "values", "words"),
    [
        ((1, 2), (1, NAN), r"\(2, nan\) is not finite.*icm\.Wall"),
        ((1, 2), (1, INF), r"\(2, inf\) is not finite.*icm\.Wall"),
        ((1, NAN), (1, 2), r"\(nan, 2\) is not finite"),
        ((INF, 1), (2, 1), r"\(inf, 2\) is not finite"),
        ((1, -2), (1, 4), r"\(-2, 4\) has a negative radius"),
        ((0.0,), (0.0,), "1 point.*none with a radius > 0"),
        ((), (), "0 point.*none with a radius > 0"),
        ((1, 2), (1,), r"\(2,\).*\(1,\).*one length"),
        (((1, 2),), ((1, 4),), r"two lists"),
        ((1e-200, 2e-200), (1, 4), "beyond float64"),
    ],
)
def test_points_that_nothing_repairs(radii: tuple, values: tuple, words: str, project: bool) -> None:
    """NaN, ∞, negative radii, no positive radius, unequal lengths: refused, with a projection too."""
    with pytest.raises(CurvatureError, match=words):
        Tabulated(radii, values, project=project)


def test_numbers_only() -> None:
    """Text and complex numbers are refused at the door."""
    for bad in (["a"], [1j]):
        with pytest.raises(DtypeError, match="values"):
            Tabulated([1.0], bad)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_rounding_is_no_fault(unit: float) -> None:
    """Convex values with 1e-13 of noise are taken as they are, met to that, and made convex."""
    x = torch.arange(1, 30, dtype=torch.float64)
    noise = 1 + 1e-13 * torch.sin(77 * x)
    for exact in (3 * x, 2 * (x - 5).clamp(min=0) + x, x**2):
        H = Tabulated(x, unit * exact * noise)
        assert worst(H(x), unit * exact) < 1e-12
        slopes = H.slope(torch.linspace(0, 30, 3001, dtype=torch.float64))
        assert bool((slopes.diff() >= 0).all())


# --- projection -------------------------------------------------------------------------------------------------


def closest(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The projection by the active sets of Lawson and Hanson: H = Σ c_k (r − x_k)₊ over all measurements, c ≥ 0."""
    positive = np.unique(x[x > 0])
    knots = np.concatenate([[0.0], positive[:-1]])
    c, _ = nnls(np.maximum(0.0, x[:, None] - knots), v, maxiter=10_000)
    return np.maximum(0.0, positive[:, None] - knots) @ c


def noisy(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = np.round(generator.uniform(0, 3, count), 1)  # with repeats and radii 0
    return x, x**2 + 0.3 * generator.normal(size=count)


@pytest.mark.parametrize("seed", range(8))
def test_projection_is_the_closest(seed: int) -> None:
    """Values and distance are those of an independent solution, repeated radii and the origin counted."""
    x, v = noisy(seed, 5 + 12 * seed)
    H, exact = Tabulated(x, v, project=True), closest(x, v)
    assert np.abs(np.array(H.values) - exact).max() < 1e-11
    by_radius = dict(zip(H.radii, H.values, strict=True)) | {0.0: 0.0}
    residual = v - np.array([by_radius[float(r)] for r in x])
    assert H.distance == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-12)
    again = parse(str(H))
    assert isinstance(again, Tabulated)
    assert (again, hash(again), again.distance) == (H, hash(H), 0.0)


def test_no_closer_table_is_convex() -> None:
    """The optimality conditions: the residual is orthogonal to H and points away from every hinge."""
    x, v = noisy(3, 60)
    H = Tabulated(x, v, project=True)
    values = H(x).numpy()
    residual = v - values
    assert abs(residual @ values) < 1e-11
    for c in (0.0, *H.radii):
        assert residual @ np.maximum(0.0, x - c) < 1e-11


@pytest.mark.parametrize("unit", [1e-100, 1e-12, 1e12, 1e100])
def test_projection_in_any_units(unit: float) -> None:
    """Units of radii and values change values by their unit and nothing else."""
    x, v = noisy(1, 40)
    base = Tabulated(x, v, project=True)
    tall, wide = Tabulated(x, unit * v, project=True), Tabulated(unit * x, v, project=True)
    assert worst(tall.values, [unit * value for value in base.values]) < 1e-12
    assert worst(wide.values, base.values) < 1e-12
    assert tall.distance == pytest.approx(unit * base.distance, rel=1e-12)
    assert wide.distance == pytest.approx(base.distance, rel=1e-12)


def test_projections_by_hand() -> None:
    """Two measurements at a radius give their mean, decreasing values 0 at worst, and a concave pair its line."""
    H = Tabulated([1.0, 1.0, 1.0], [1.0, 2.0, 6.0], project=True)
    assert H.values == pytest.approx((3.0,), rel=1e-14)
    assert H.distance == pytest.approx(math.sqrt(14 / 3), rel=1e-14)
    zero = Tabulated([1.0, 2.0], [-1.0, -2.0], project=True)
    assert (zero.values, zero.distance) == ((0.0, 0.0), math.sqrt(2.5))
    line = Tabulated([1.0, 2.0], [1.0, 1.0], project=True)  # min (s − 1)² + (2s − 1)²: s = 3/5
    assert line.values == pytest.approx((0.6, 1.2), rel=1e-14)
    assert line.distance == pytest.approx(math.sqrt((0.16 + 0.04) / 2), rel=1e-13)
    assert Tabulated([0.0, 1.0], [3.0, 1.0], project=True).distance == pytest.approx(3 / math.sqrt(2), rel=1e-14)
    assert Tabulated([1.0], [-0.0], project=True).distance == 0.0


def test_a_distance_follows_its_table() -> None:
    """Multiples carry the distance along; it takes no part in equality."""
    H = Tabulated([1.0, 2.0], [1.0, 1.0], project=True)
    assert H.multiply(3.0).distance == pytest.approx(3 * H.distance, rel=1e-14)
    assert H.stretch(2.0).distance == H.distance
    assert Tabulated(H.radii, H.values) == H


def test_projected_tables_are_projected() -> None:
    """A second projection changes no bit."""
    x, v = noisy(5, 80)
    H = Tabulated(x, v, project=True)
    assert Tabulated(H.radii, H.values, project=True) == H


def test_missing_cvxpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cvxpy a projection that is needed says so; one that is not needed passes."""
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(MissingPackageError, match=r"project=True.*pip install cvxpy"):
        Tabulated([1.0, 2.0], [1.0, 1.0], project=True)
    assert Tabulated([1.0, 2.0], [1.0, 4.0], project=True).distance == 0.0


def test_families_beside_it() -> None:
    """A table of a kinked curvature plus that curvature: the kinks merge where both have one."""
    x = tensor(1.0, 2.0, 3.0, 4.0)
    H: Curvature = Tabulated(x, Power(1.0)(x) + Kink(2.0)(x)) + Kink(2.0)
    assert H.kinks == ((2.0, 2.0),)
