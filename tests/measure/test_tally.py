"""The sums against direct computations from all remainders, kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from icm.measure.tally import BatchSums, Tally

R, P, D = 3, 4, 5


def remainders(B: int, seed: int, skewed: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """x and linear terms (R, P, D, B), of which some tokens (P, B) are real."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    example, token = normal(1, 1, 1, B), normal(1, P, 1, B)
    x = 1 + (example.exp() if skewed else example) + 0.5 * token + normal(R, P, D, B)
    real = (torch.arange(P)[:, None] <= torch.randint(P, (B,), generator=generator)).double()
    return x * torch.tensor([1.0, 4.0, 1e-3]).double()[:, None, None, None], normal(R, P, D, B), real


def tally(*batches: tuple[Tensor, Tensor, Tensor]) -> Tally:
    total = Tally.empty(R - 1)
    for x, linear, real in batches:
        total = total + Tally.of(x, linear, real, 0.25, (7, 3.0, 5.0))
    return total


def flat(batches: list[tuple[Tensor, Tensor, Tensor]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each example, its real remainders (R, tokens, D) and linear terms."""
    found = []
    for x, linear, real in batches:
        for b in range(x.shape[-1]):
            keep = real[:, b].bool()
            found.append((x[:, keep, :, b].numpy(), linear[:, keep, :, b].numpy()))
    return found


def test_everything_is_what_the_remainders_say():
    batches = [remainders(6, 0), remainders(5, 1), remainders(1, 2)]
    made, every = tally(*batches), flat(batches)
    x = np.concatenate([e.reshape(R, -1) for e, _ in every], 1)
    n = np.array([e[0].size for e, _ in every])
    S = np.array([e.sum((1, 2)) for e, _ in every])
    np.testing.assert_allclose(made.mean, x.mean(1), rtol=1e-13)
    assert (int(made.weight), int(made.examples), int(made.tokens)) == (x.shape[1], 12, n.sum() // D)
    np.testing.assert_allclose(made.square, (x**2).sum(1), rtol=1e-13)
    np.testing.assert_array_equal(made.negative, (x < 0).sum(1))
    np.testing.assert_allclose(made.linear, sum((y**2).sum((1, 2)) for _, y in every), rtol=1e-13)
    np.testing.assert_allclose(made.token, sum((e.sum(2) ** 2 / D).sum(1) for e, _ in every), rtol=1e-13)
    z = S - n[:, None] * x.mean(1)
    c = n.sum() ** 2 / (n**2).sum()
    assert float(made.clusters) == pytest.approx(c)
    np.testing.assert_allclose(made.covariance, z.T @ z * c / (c - 1) / n.sum() ** 2, rtol=1e-11)
    skew = (z**3).sum(0) / (z**2).sum(0) ** 1.5 * np.sqrt(c * (c - 1)) / (c - 2)
    np.testing.assert_allclose(made.skewness, skew, rtol=1e-9)
    shares = S.sum(0) ** 2 / (S**2).sum(0)
    np.testing.assert_allclose(made.shares, np.clip(shares, 2, c), rtol=1e-12)
    assert float(made.noise_radius / made.weight) == 0.25
    assert (float(made.rows), float(made.outputs), float(made.inputs)) == (21, 9, 15)


def test_examples_of_equal_size_have_the_textbook_errors():
    x, linear, _ = remainders(8, 3)
    made = tally((x, linear, torch.ones(P, 8).double()))
    means = x.mean((1, 2)).numpy()
    np.testing.assert_allclose(made.covariance.diagonal().sqrt(), means.std(1, ddof=1) / 8**0.5, rtol=1e-11)
    assert float(made.clusters) == 8
    from scipy.stats import skew

    np.testing.assert_allclose(made.skewness, skew(means, axis=1, bias=False) / 8**0.5, rtol=1e-9)


def test_batches_add_up_in_any_split():
    x, linear, real = remainders(9, 4)
    whole = tally((x, linear, real))
    parts = tally(*[(x[..., i], linear[..., i], real[:, i]) for i in ([0, 1, 2, 3], [4], [5, 6, 7, 8])])
    for name in ("weight", "total", "outer", "cubed", "squared", "mixed2", "square", "token"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name), rtol=1e-13, atol=0)


def test_directions_of_a_token_add_up_in_any_split():
    x, linear, real = remainders(6, 6)
    whole = Tally.of(x, linear, real, 0.25, (7, 3.0, 5.0))
    sums = BatchSums(R, 6)
    for token in range(P):
        for part in ([0, 1], [2], [3, 4]):
            sums.add(x[:, token, part], linear[:, token, part], real[token])
        sums.next()
    for name, value in vars(sums.tally(0.25, (7, 3.0, 5.0))).items():
        torch.testing.assert_close(value, getattr(whole, name), rtol=1e-13, atol=0)


def test_examples_without_a_token_are_counted_apart():
    x, linear, real = remainders(6, 7)
    real[:, [1, 4]] = 0
    made, kept = tally((x, linear, real)), [0, 2, 3, 5]
    alone = tally((x[..., kept], linear[..., kept], real[:, kept]))
    assert (float(made.left_out), float(made.examples)) == (2, 4)
    for name in ("weight", "total", "outer", "cubed", "token", "examples"):
        torch.testing.assert_close(getattr(made, name), getattr(alone, name), rtol=1e-13, atol=0)


def test_skewness_is_nothing_where_examples_agree():
    x = torch.full((R, P, D, 6), 0.1, dtype=torch.float64)
    made = tally((x, x, torch.ones(P, 6).double()))
    assert (made.skewness == 0).all()
    assert (made.covariance.diagonal().abs() < 1e-15).all()


def test_numbers_survive_json():
    made = tally(remainders(6, 5))
    again = Tally.from_dict(json.loads(json.dumps(made.to_dict())))
    for name, value in vars(made).items():
        assert torch.equal(getattr(again, name), value), name
    older = made.to_dict()
    del older["left_out"]
    assert float(Tally.from_dict(older).left_out) == 0
    with pytest.raises(KeyError, match="weight"):
        Tally.from_dict({})
