"""Iterations that others have published, as compositions under their names, with their sources."""

from __future__ import annotations

from dataclasses import dataclass

from icm.errors import InputError
from icm.maps.composition import Composition

Factor = tuple[float, ...]


@dataclass(frozen=True)
class Known:
    """A published iteration: its factors as printed, how many of them it takes unless told otherwise, and its source.

    `repeats`: whether the last factor goes on for as many steps as wanted; if not, `schedule` is all there is.
    """

    schedule: tuple[Factor, ...]
    steps: int
    repeats: bool
    source: str

    def composition(self, steps: int) -> Composition:
        """The first `steps` factors."""
        tail = (self.schedule[-1],) * max(0, steps - len(self.schedule))
        return Composition((*self.schedule[:steps], *tail))


def _safe(factors: tuple[Factor, ...], safety: float) -> tuple[Factor, ...]:
    """p(x/safety) for every factor but the last."""
    divided = [tuple(c / safety ** (2 * i + 1) for i, c in enumerate(factor)) for factor in factors[:-1]]
    return (*divided, factors[-1])


POLAR_EXPRESS_RAW: tuple[Factor, ...] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
"""Polar Express before its safety factor: lower end 1e−3, cushion 0.02407327424182761."""

_KNOWN: dict[str, Known] = {
    "newton-schulz": Known(
        ((3.4445, -4.7750, 2.0315),),
        5,
        True,
        "K. Jordan et al., Muon (2024), https://kellerjordan.github.io/posts/muon/; the default of torch.optim.Muon",
    ),
    "polar-express": Known(
        _safe(POLAR_EXPRESS_RAW, 1.01),
        5,
        True,
        "Amsel, Persson, Musco & Gower, The Polar Express, arXiv 2505.16932, the coefficients listed with its "
        "algorithm: degree 5, lower end 1e-3, safety factor 1.01 on all but the last",
    ),
    "you": Known(
        (
            (4.0848, -6.8946, 2.9270),
            (3.9505, -6.3029, 2.6377),
            (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046),
            (2.8366, -3.0525, 1.2012),
        ),
        5,
        False,
        "You Jiacheng, https://x.com/YouJiacheng/status/1905861218138804534 (2025), as used in modded-nanogpt and as "
        "'quintic' in NVIDIA Emerging-Optimizers",
    ),
    "cubic": Known(
        ((1.5, -0.5),),
        12,
        True,
        "Newton-Schulz of degree 3: Bjorck & Bowie (1971); Higham, Functions of Matrices (2008), chapter 8",
    ),
    "quintic": Known(
        ((15 / 8, -10 / 8, 3 / 8),),
        9,
        True,
        "Newton-Schulz of degree 5: Bjorck & Bowie (1971); the Pade family of Kenney & Laub (1991) with denominator 1",
    ),
}

NAMES: tuple[str, ...] = tuple(_KNOWN)


def known(name: str, steps: int | None = None) -> Composition:
    """The composition of a published iteration, for singular values in [0, 1].

    "newton-schulz", the quintic of Muon; "polar-express"; "you", five tuned quintics; "cubic" and "quintic", the
    classical steps whose slope vanishes at 1. `steps`: how many factors; None: as published, or what the classical
    ones need from 1e−2 or so. "polar-express" goes on with (15, −10, 3)/8 beyond its list.

    Raises InputError for an unknown name, fewer than one step, or other than 5 steps of "you".
    """
    found = _known(name)
    steps = found.steps if steps is None else steps
    if steps < 1:
        raise InputError(f"steps={steps!r}: an iteration takes at least one")
    if not found.repeats and steps != found.steps:
        raise InputError(f"steps={steps!r}: {name!r} is published as a schedule of {found.steps} steps, all or none")
    return found.composition(steps)


def source(name: str) -> str:
    """Where the coefficients of a known iteration come from.

    Raises InputError for an unknown name.
    """
    return _known(name).source


def _known(name: str) -> Known:
    if name not in _KNOWN:
        raise InputError(f"name={name!r}: no such iteration; choose one of {', '.join(map(repr, NAMES))}")
    return _KNOWN[name]
