"""What is made of the sums: intervals, exponents, spreads, noise, files; against scipy and NumPy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from icm.curvature import Power
from icm.errors import FileError, InputError
from icm.measure import Measurement, curvature, load, save
from icm.measure.tally import Tally
from tests.measure.planted import CURVATURES, Planted, batch, quadratic, radial

RADII = (0.5, 1.0, 2.0, 4.0)


def made(
    means: Tensor, radii: tuple[float, ...] = RADII, noise: float = 0.0, noise_radius: float = 1e-6, name: str = "a"
) -> Measurement:
    """A measurement of given remainders (radii, tokens, directions, examples), with remainders ±noise at r₀."""
    sign = torch.ones(1, *means.shape[1:], dtype=torch.float64)
    sign[..., ::2] = -1
    x = torch.cat([means, noise * sign])
    tally = Tally.of(x, torch.zeros_like(x), torch.ones(x.shape[1], x.shape[3]).double(), noise_radius, (1, 4.0, 9.0))
    r = torch.tensor(radii, dtype=torch.float64)
    return Measurement(name, 3, 2, r, tally, "one", means.shape[2], means.shape[1], 0, 1e-16)


def sample(E: int = 12, D: int = 3, power: float = 2.5, seed: int = 0) -> Tensor:
    """a_e r^(p + b_e) (1 + noise), clustered."""
    generator = torch.Generator().manual_seed(seed)
    a = 1 + 0.3 * torch.rand(E, generator=generator, dtype=torch.float64)
    b = 0.1 * torch.randn(E, generator=generator, dtype=torch.float64)
    r = torch.tensor(RADII, dtype=torch.float64)
    mean = a * r[:, None] ** (power + b)
    return mean[:, None, None] * (1 + 0.2 * torch.rand(4, 2, D, E, generator=generator, dtype=torch.float64))


def test_intervals_are_students_where_examples_are_symmetric():
    E = 10
    x = (1 + torch.linspace(-0.5, 0.5, E, dtype=torch.float64)).expand(4, 2, 3, E)
    found = made(x)
    for level in (0.5, 0.9, 0.95):
        means = x.mean((1, 2))[0].numpy()
        wanted = stats.t.interval(level, E - 1, means.mean(), stats.sem(means))
        np.testing.assert_allclose(found.interval_at(level)[:, 0], wanted, rtol=1e-6)
    assert torch.equal(found.interval, found.interval_at(0.95))
    for level in (0, 1, 1.5, -0.1, math.nan):
        with pytest.raises(InputError, match=r"must be between 0 and 1, such as 0\.95"):
            found.interval_at(level)


def test_intervals_reach_further_on_the_side_of_rare_large_examples():
    """Hall's end solves s + a s²/3 + a² s³/27 + a/6 = −t, a the skewness of the mean."""
    means = np.array([1.0, 1.1, 0.9, 1.2, 1.0, 4.0, 0.8, 1.1])
    for sign in (1, -1):
        x = sign * torch.tensor(means).expand(4, 1, 1, 8)
        found = made(x)
        low, high = (float(end[0]) for end in found.interval)
        error, t = stats.sem(means), stats.t.ppf(0.975, 7)
        a = stats.skew(means, bias=False) / 8**0.5
        roots = np.roots([a**2 / 27, a / 3, 1, a / 6 + t])
        s = float(roots[abs(roots.imag) < 1e-9].real[0])
        near, far = (low, high) if sign > 0 else (-high, -low)
        assert near == pytest.approx(means.mean() - t * error)
        assert far == pytest.approx(means.mean() - s * error, rel=1e-6)
        assert far - means.mean() > 1.3 * (means.mean() - near)


def test_exponents_are_the_slopes_of_least_squares():
    found = made(sample())
    mean = found.mean.numpy()
    ends: list[tuple[Any, Any]] = [(None, None), (1.0, None), (None, 2.0), (0.9, 2.1)]
    for (low, high), used in zip(ends, (slice(0, 4), slice(1, 4), slice(0, 3), slice(1, 3)), strict=True):
        fitted = found.exponent(low, high)
        line: Any = stats.linregress(np.log(RADII[used]), np.log(mean[used]))
        assert fitted.value == pytest.approx(line.slope, rel=1e-12)
        assert fitted.radii == RADII[used]
        assert fitted.low < fitted.value < fitted.high


def test_exponents_have_the_jackknifes_intervals():
    """Leaving out one example after the other gives nearly the delta method's error."""
    x = sample(40)
    found = made(x)
    slopes = [made(x[..., [e for e in range(40) if e != left]]).exponent().value for left in range(40)]
    error = np.sqrt(39 / 40 * np.sum((np.array(slopes) - np.mean(slopes)) ** 2))
    fitted = found.exponent()
    assert fitted.high - fitted.value == pytest.approx(stats.t.ppf(0.975, 39) * error, rel=0.1)
    assert found.exponent(level=0.5).high < fitted.high


def test_exponents_need_two_resolved_radii():
    found = made(sample())
    with pytest.raises(InputError, match="a: 1 radii from 4 to inf stand clear of rounding, and an exponent needs two"):
        found.exponent(4.0)
    with pytest.raises(InputError, match=r"0 radii .* measure larger radii, or with dtype=torch\.float64"):
        made(sample(), noise=100.0).exponent()


def test_a_negative_h_is_called_so_and_not_noise():
    found = made(-sample())
    assert not found.resolved.any()
    assert (found.negative == 1).all()
    for refused in (found.exponent, found.to_curvature):
        with pytest.raises(InputError, match="at 4 H is negative, as no curvature of the library is; measure other"):
            refused()


def test_spreads_split_into_directions_and_tokens():
    generator = torch.Generator().manual_seed(0)
    token = torch.rand(4, 40, 1, 50, generator=generator, dtype=torch.float64)
    x = 1 + token + 0.5 * torch.randn(4, 40, 6, 50, generator=generator, dtype=torch.float64)
    found = made(x)
    flat = x.flatten(1)
    np.testing.assert_allclose(found.spread, flat.std(1, correction=0) / flat.mean(1), rtol=1e-10)
    within = x.var(2).mean((1, 2)).sqrt() / flat.mean(1)
    np.testing.assert_allclose(found.spread_directions, within, rtol=1e-10)
    np.testing.assert_allclose(found.spread_tokens**2 + found.spread_directions**2, found.spread**2, rtol=1e-10)
    torch.testing.assert_close(found.spread_directions * found.mean, torch.full((4,), 0.5).double(), rtol=0.05, atol=0)
    np.testing.assert_allclose(found.negative, (flat < 0).double().mean(1))
    total = flat.var(correction=0)
    assert found.explained == pytest.approx(float(flat.mean(1).var(correction=0) / total))


def test_rounding_hides_radii_and_says_so():
    x = sample()
    found = made(x, noise=1.0, noise_radius=0.7)
    # The floor: twice the deviation at r₀, averaged over 12 examples, and their mean there, 0.
    torch.testing.assert_close(found.floor, torch.full((4,), 2 / 12**0.5).double())
    assert found.resolved.tolist() == [False, *(float(h) > 6 / 12**0.5 for h in found.mean[1:])]
    assert made(x, noise_radius=1.5).resolved.tolist() == [False, False, True, True]
    with pytest.raises(
        InputError, match=r"a: no H\(r\) is positive and clear of rounding \(floor 5.8e\+01\); measure larger"
    ):
        made(x, noise=100.0).to_curvature()


@pytest.mark.parametrize("positions", ["one", "all"])
def test_a_radial_loss_is_explained_by_the_radius(positions: Any) -> None:
    for H in CURVATURES.values():
        found = curvature(Planted(), radial(H), [batch(18, 1, deviation=0)], "layer", (0.5, 1.0, 2.0), directions=20,
                          positions=positions)["layer"]  # fmt: skip
        assert found.explained > 1 - 1e-12
        assert (found.spread < 1e-6).all()
        assert (found.negative == 0).all()
        torch.testing.assert_close(found.mean, H(found.radii), rtol=1e-10, atol=0)
        torch.testing.assert_close(found.ratio, H(found.radii) / found.radii**2, rtol=1e-10, atol=0)


@pytest.mark.parametrize("contrast", [4.0, 20.0, -1.0])
def test_an_anisotropic_loss_is_not(contrast: float) -> None:
    """dᵀA d on the sphere of radius r in R^m: mean r² tr A/m, variance 2 r⁴ (m tr A² − (tr A)²)/(m² (m + 2))."""
    m = 6
    A = torch.diag(torch.cat([torch.ones(3), contrast * torch.ones(3)]).double())
    if contrast < 0:
        A[3, 3] = 1.0  # so that the mean is not 0
    made_ = batch(80, 1, deviation=0)
    found = curvature(Planted(), quadratic(A), [made_], "layer", (0.5, 1.0, 2.0), directions=250)["layer"]
    trace, square = float(A.trace()), float((A @ A).trace())
    mean = trace / m
    deviation = math.sqrt(2 * (m * square - trace**2) / (m**2 * (m + 2)))
    torch.testing.assert_close(found.ratio, torch.full((3,), mean).double(), rtol=0.03, atol=0)
    torch.testing.assert_close(found.spread, torch.full((3,), deviation / mean).double(), rtol=0.03, atol=0)
    torch.testing.assert_close(found.spread_directions, found.spread, rtol=1e-3, atol=0)
    r2 = np.array([0.25, 1.0, 4.0])
    wanted = np.var(mean * r2) / (np.var(mean * r2) + np.mean((deviation * r2) ** 2))
    assert found.explained == pytest.approx(wanted, abs=0.02)
    assert found.explained < 0.9
    if contrast < 0:  # 4 directions up, 2 down: a Beta(1, 2) below 1/2... of the squares in the second
        assert float(found.negative[0]) == pytest.approx(stats.beta(2, 1).cdf(0.5), abs=0.02)
    assert found.exponent().value == pytest.approx(2, abs=1e-9)


def test_tokens_that_differ_are_a_spread_between_tokens():
    made_ = batch(200, 1, deviation=0)
    made_["a"][::2] = 3.0
    found = curvature(Planted(), radial(lambda r: r**2), [made_], "layer", (1.0, 2.0), directions=4)["layer"]
    torch.testing.assert_close(found.spread_tokens, torch.full((2,), 0.5).double(), rtol=1e-6, atol=0)
    assert (found.spread_directions < 1e-6).all()


def test_files_hold_everything(tmp_path: Path) -> None:
    every = [made(sample(seed=i), name=f"layer.{i}") for i in range(2)]
    path = save({one.layer: one for one in every}, tmp_path / "h.json")
    again = load(path)
    assert list(again) == ["layer.0", "layer.1"]
    for one in every:
        other = again[one.layer]
        assert json.dumps(other.to_dict()) == json.dumps(one.to_dict())
        assert torch.equal(other.interval, one.interval)
        assert other.exponent() == one.exponent()
    alone = Measurement.load(every[0].save(tmp_path / "one.json"))
    assert json.dumps(alone.summary()) == json.dumps(every[0].summary())
    with pytest.raises(FileError, match=r"holds 2 measurements; read them with icm\.measure\.load"):
        Measurement.load(path)


@pytest.mark.parametrize("content", ["", "{}", '{"format": "icm measurements 1"}', '{"format": 2}', "[1]", "\x00"])
def test_files_of_other_things_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "h.json"
    path.write_text(content)
    with pytest.raises(FileError, match=r"holds no measurements \(.*\); write them with save"):
        load(path)
    with pytest.raises(FileError, match="cannot be read: No such file"):
        load(tmp_path / "none.json")
    with pytest.raises(FileError, match=r"name it \.json"):
        save([], tmp_path / "h.txt")


def test_norms_and_units():
    found = made(sample())
    assert (found.output_norm, found.input_norm) == (2.0, 3.0)
    assert (found.count, found.examples, found.left_out) == (72, 12, 0)
    H, unit = found.to_curvature("power"), found.to_curvature("power", unit_inputs=True)
    assert isinstance(H, Power)
    r = torch.tensor([0.3, 1.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(unit(r), H(3.0 * r), rtol=1e-12, atol=0)
    within = found.to_curvature("power", within=True)
    assert within.wall == 4.0
    assert found.to_curvature("power", unit_inputs=True, within=True).wall == pytest.approx(4.0 / 3)
    assert found.fit("power").distance == pytest.approx(float((H(found.radii) / found.mean - 1).square().mean().sqrt()))
