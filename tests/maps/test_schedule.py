"""Between refreshes products alone, at a refresh a solve, and never a map outside its domain."""

from __future__ import annotations

import pytest
import torch

import icm
from icm.errors import InputError, SolveError
from icm.maps.schedule import MARGIN, Schedule


def away(Q: torch.Tensor, G: torch.Tensor, H: str) -> float:
    wanted = icm.solve(G.double(), H).Q
    return float((Q.double() - wanted).norm() / wanted.norm())


def drift(steps: int, rate: float, rng: torch.Generator, m: int = 24, n: int = 32) -> list[torch.Tensor]:
    """Gradients that turn slowly: G cos θ + D sin θ, of one Frobenius norm on average."""
    G, D = (torch.randn(m, n, dtype=torch.float64, generator=rng) for _ in range(2))
    angles = torch.arange(steps) * rate
    return [(G * float(a.cos()) + D * float(a.sin())).float() for a in angles]


@pytest.mark.parametrize("H", ["r^2 + r^4", "0.5*r^2 + 20*kink(1)", "wall(1)"])
def test_every_call_is_near_the_exact_answer(H: str, rng: torch.Generator) -> None:
    schedule = Schedule(H, refresh=5, tol=1e-3)
    for call, G in enumerate(drift(20, 0.005, rng)):
        Q = schedule(G)
        # φ is that of gradients up to four calls old: half a percent a call is how fast these turn.
        assert away(Q, G, H) <= (float(schedule.error) if call % 5 == 0 else 0.03)
    assert schedule.calls == 20
    assert schedule.refreshes == 4


def test_refresh_at_every_call_is_a_solve(rng: torch.Generator) -> None:
    schedule = Schedule("r^3", refresh=1, tol=1e-4)
    for G in drift(4, 0.3, rng):
        assert away(schedule(G), G, "r^3") <= float(schedule.error) <= 1e-4
    assert schedule.refreshes == 4


def test_a_gradient_that_outgrows_the_domain_is_solved_anew(rng: torch.Generator) -> None:
    """Beyond its domain a composition explodes; a jump of ‖G‖₂ is seen and answered."""
    schedule = Schedule("r^2 + 5*r^4", refresh=100, tol=1e-3)
    G = drift(1, 0.1, rng)[0]
    schedule(G)
    schedule(1.02 * G)
    assert schedule.refreshes == 1
    assert MARGIN < 3
    assert away(schedule(3 * G), 3 * G, "r^2 + 5*r^4") <= float(schedule.error)
    assert schedule.refreshes == 2


def test_a_new_direction_that_outgrows_the_domain(rng: torch.Generator) -> None:
    """The probe follows the gradients: a direction that rises over some calls is noticed before it explodes."""
    schedule = Schedule("wall(1)", refresh=100, tol=1e-3)
    G = torch.randn(24, 32, dtype=torch.float64, generator=rng)
    u, v = (
        torch.randn(24, 1, dtype=torch.float64, generator=rng),
        torch.randn(1, 32, dtype=torch.float64, generator=rng),
    )
    for step in range(40):
        grown = (G + 0.02 * step * u @ v).float()
        assert away(schedule(grown), grown, "wall(1)") < 0.2
    assert schedule.refreshes > 1


def test_a_spike_in_a_direction_never_seen(rng: torch.Generator) -> None:
    schedule = Schedule("r^2 + r^4", refresh=100, tol=1e-3)
    G = torch.zeros(16, 16)
    G[0, 0] = 1.0
    schedule(G)
    G[5, 5] = 20.0
    assert away(schedule(G), G, "r^2 + r^4") <= float(schedule.error)
    grown = torch.randn(16, 16, dtype=torch.float64, generator=rng)
    for step in range(40):
        u, v = (torch.randn(*shape, dtype=torch.float64, generator=rng) for shape in ((16, 1), (1, 16)))
        grown = grown + 0.3 * step * u @ v
        Q = schedule(grown.float())
        assert float(Q.norm()) <= 1.6 * float(icm.solve(grown, "r^2 + r^4").Q.norm())
    assert schedule.refreshes < 41


def test_gradients_that_begin_at_zero(rng: torch.Generator) -> None:
    G = drift(1, 0.1, rng)[0]
    for H, small in (("r^2 + r^4", 0 * G), ("r + r^2", 1e-4 * G)):
        schedule = Schedule(H, refresh=100, tol=1e-3)
        assert torch.equal(schedule(small), torch.zeros_like(G))
        assert torch.equal(schedule(small), torch.zeros_like(G))
        assert schedule.refreshes == 1
        assert away(schedule(100 * G), 100 * G, H) <= float(schedule.error)


def test_a_gradient_that_shrinks_or_is_not_finite(rng: torch.Generator) -> None:
    schedule = Schedule("r^2 + r^4", refresh=100, tol=1e-3)
    G = drift(1, 0.1, rng)[0]
    schedule(G)
    assert away(schedule(1e-3 * G), 1e-3 * G, "r^2 + r^4") <= float(schedule.error)
    bad = (1e-3 * G).clone()
    bad[3, 4] = float("nan")
    with pytest.raises(InputError, match="non-finite"):
        schedule(bad)


def test_half_precision_probes_do_not_overflow(rng: torch.Generator) -> None:
    for G in (1e-4 * torch.randn(24, 32, generator=rng), 2000 * torch.ones(24, 32)):
        schedule = Schedule("r^2 + r^4", refresh=100, tol=5e-2)
        schedule(G.half())
        assert away(schedule((1.001 * G).half()), (1.001 * G).half(), "r^2 + r^4") <= 5e-2
        assert schedule.refreshes == 1


def test_a_first_call_that_fails_fixes_no_shape(rng: torch.Generator) -> None:
    schedule = Schedule("r^3")
    with pytest.raises(InputError, match="non-finite"):
        schedule(torch.full((4, 4), float("nan")))
    assert schedule(torch.eye(6)).shape == (6, 6)


def test_renew(rng: torch.Generator) -> None:
    schedule = Schedule("r^3", refresh=100)
    G = drift(1, 0.1, rng)[0]
    schedule(G)
    schedule.renew()
    schedule(G)
    assert schedule.refreshes == 2


def test_batches_and_zeros(rng: torch.Generator) -> None:
    G = torch.stack([*drift(2, 1.0, rng), torch.zeros(24, 32)])
    schedule, Q = Schedule("r^3", refresh=3), G
    for _ in range(3):
        Q = schedule(G)
        assert Q.shape == G.shape
        assert torch.equal(Q[2], torch.zeros(24, 32))
    assert schedule.error.shape == (3,)
    assert away(Q[1], G[1], "r^3") <= float(schedule.error[1])


@pytest.mark.parametrize("scale", [1e20, 1e-20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scales(scale: float, dtype: torch.dtype, rng: torch.Generator) -> None:
    schedule = Schedule("r^3", refresh=10, tol=2e-2)
    for G in drift(3, 0.001, rng):
        grown = (scale * G.double()).to(dtype)
        assert away(schedule(grown), grown, "r^3") <= 2.5e-2
    assert schedule.refreshes == 1


def test_what_cannot_be_answered(rng: torch.Generator) -> None:
    with pytest.raises(SolveError, match="unbounded"):
        Schedule("r")(10 * torch.eye(4))
    G = torch.diag(torch.logspace(0, -12, 16))
    with pytest.raises(SolveError, match="fit"):
        Schedule("wall(1)", tol=1e-4)(G)
    lenient = Schedule("wall(1)", tol=1e-4, on_failure="return")
    assert away(lenient(G), G, "wall(1)") <= float(lenient.error)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"refresh": 0}, "refresh=0"), ({"refresh": True}, "refresh=True"), ({"tol": 0.0}, "tol=0.0"),
     ({"on_failure": "ignore"}, "on_failure='ignore'")],
)  # fmt: skip
def test_options_that_are_none(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule("r^3", **options)


def test_gradients_that_do_not_fit(rng: torch.Generator) -> None:
    schedule = Schedule("r^3")
    with pytest.raises(InputError, match="no call has been made"):
        schedule.error  # noqa: B018
    schedule(torch.eye(3))
    with pytest.raises(InputError, match="one Schedule per shape"):
        schedule(torch.eye(4))
    with pytest.raises(InputError, match="one Schedule per shape"):
        schedule(torch.eye(3, dtype=torch.float64))
    with pytest.raises(InputError, match="non-finite"):
        Schedule("r^3")(torch.full((2, 2), float("nan")))
