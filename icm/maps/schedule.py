"""Refreshing φ every few calls: singular values drift slowly in training, and most calls can be products alone."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import require_finite
from icm.curvature import Curvature, as_curvature
from icm.errors import InputError, SolveError
from icm.maps.norm_bounds import leading, probe
from icm.maps.planning import Plan, plan
from icm.maps.statistics import Method

MARGIN = 1.2  # of ‖G‖₂ at the last refresh, up to which the compiled maps hold
_SHRUNK = 0.25 / MARGIN  # of it, below which φ was solved for another G
_LONGER = 1.5  # times ‖Q‖_F at the refresh: more is no answer
_WITHIN = 0.9  # of that margin: what a probe of ‖G‖₂, which falls short of it, may find before φ is renewed


class Schedule:
    """Q ≈ argmin −Tr(QGᵀ) + E H(‖Qζ‖) for a stream of gradients G (…, m, n) of one shape, by matrix products.

    schedule(G) solves anew at calls 0, `refresh`, 2·`refresh`, …, and applies the φ last solved for in between. On
    the CPU it also solves anew where that φ does not fit: ‖G‖₂, probed along its rows and the directions last found
    largest, near the end of the domain that φ was compiled for (1.2 × the largest singular value then) or below a
    quarter of it, or a ‖Q‖_F that this φ cannot give. On an accelerator, where looking at a number stalls the queue, G
    is scaled down into the domain and Q to the largest length instead; a G that was 0 is answered by 0 until the next
    refresh. `error` (…) is the bound of ‖Q − Q*‖_F/‖Q*‖_F at the last refresh; between refreshes no bound is claimed.
    `tol` is the error asked for: None for 2e−2 in 16 bits and 1e−4 otherwise; the working precision is the cheapest
    that leaves the error within tol. G is detached: no gradient flows through a schedule.

    Raises InputError for a `refresh` that is not an integer ≥ 1, for a tol that is not a number > 0, and for a G whose
    shape, dtype or device differs from the first one's; SolveError where the error misses tol and on_failure is
    "raise", and where the program is unbounded.
    """

    def __init__(
        self,
        H: Curvature | str,
        refresh: int = 10,
        tol: float | None = None,
        *,
        statistics: Method = "auto",
        on_failure: str = "raise",
    ):
        if isinstance(refresh, bool) or not isinstance(refresh, numbers.Integral) or refresh < 1:
            raise InputError(f"refresh={refresh!r}: φ is renewed every `refresh` calls, an integer ≥ 1")
        if tol is not None and not (isinstance(tol, numbers.Real) and tol > 0):
            raise InputError(f"tol={tol!r}: a relative error is bounded by a number > 0")
        if on_failure not in ("raise", "return"):
            raise InputError(f"on_failure={on_failure!r}: choose 'raise' or 'return'")
        self.H = as_curvature(H)
        self.refresh = int(refresh)
        self.tol = tol
        self.statistics: Method = statistics
        self.on_failure = on_failure
        self.calls = 0
        self.refreshes = 0
        self._age = 0
        self._plan: Plan | None = None
        self._like: tuple[torch.Size, torch.dtype, torch.device] | None = None
        self._probe: Tensor | None = None

    @property
    def plan(self) -> Plan | None:
        """The maps in use; None before the first call."""
        return self._plan

    @property
    def error(self) -> Float[Tensor, "*batch"]:
        """The bound of ‖Q − Q*‖_F/‖Q*‖_F (…) at the last refresh, float64."""
        if self._plan is None or self._like is None:
            raise InputError("no call has been made: error is that of the last refresh")
        return self._plan.errors.reshape(self._like[0][:-2])

    def __call__(self, G: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m n"]:
        """Q, shaped like G and in its dtype."""
        if not isinstance(G, Tensor) or G.ndim < 2 or not G.is_floating_point():
            raise InputError(f"G is {_kind(G)}; a schedule takes floating-point tensors (…, m, n)")
        like = (G.shape, G.dtype, G.device)
        if self._like is not None and like != self._like:
            raise InputError(
                f"G is {_kind(G)}, earlier ones {tuple(self._like[0])} {self._like[1]} on {self._like[2]}: make one "
                "Schedule per shape"
            )
        flat = G.detach().reshape(-1, *G.shape[-2:])
        due = self._plan is None or self._age >= self.refresh
        Q = self._renewed(flat) if due else self._applied(flat)
        self._like = like
        self._age += 1
        self.calls += 1
        return Q.reshape(G.shape)

    def renew(self) -> None:
        """Solve anew at the next call."""
        self._age = self.refresh

    def _renewed(self, G: Tensor) -> Tensor:
        """Q from a new plan."""
        require_finite(G, "G")
        tol = self.tol
        if tol is None:
            tol = 1e-4 if G.dtype in (torch.float32, torch.float64) else 2e-2
        made = plan(
            G,
            self.H,
            tol,
            statistics=self.statistics,
            margin=MARGIN,
            previous=None if self._plan is None else self._plan.compiled,
        )
        status = made.answers.status
        for i, map in enumerate(made.compiled):
            if map is None and not status[i].answers:
                raise SolveError(f"{status[i].value} for batch element {i}, H = {self.H}: rescale G or H")
            if map is None and not bool((made.answers.sigma[i] == 0).all()):
                raise SolveError(f"{status[i].value} for batch element {i}, H = {self.H}: add curvature to H")
            if map is not None and map.error.total > tol and self.on_failure == "raise":
                raise SolveError(
                    f"products reach an error of {map.error} for batch element {i}, tol {tol:.0e}, H = {self.H}. Raise "
                    "tol, pass a finer dtype, or take what there is with on_failure='return'"
                )
        self._plan, self._age = made, 0
        self.refreshes += 1
        self._probe = leading(G)
        return made(G)

    def _applied(self, G: Tensor) -> Tensor:
        """Q from the plan there is, renewed or held back where it does not fit G."""
        made = self._plan
        if made is None or self._probe is None:
            return self._renewed(G)
        domain, most = made.domain.to(G.device), (_LONGER * made.length).to(G.device)
        size, self._probe = probe(G, self._probe)
        longest = (size / domain.where(domain > 0, 1.0)).masked_fill((domain == 0) & (size > 0), torch.inf)
        if G.device.type != "cpu":
            Q = made(G * (_WITHIN / longest).clamp(max=1.0).to(G.dtype)[:, None, None])
            size = torch.linalg.matrix_norm(Q.float())
            return Q * (most.float() / size.clamp(min=1e-30)).clamp(max=1.0).to(G.dtype)[:, None, None]
        # Written so that NaN does not pass.
        fits = (longest <= _WITHIN) & ((longest >= _SHRUNK) | (domain == 0))
        if not bool(fits.all()):
            return self._renewed(G)
        Q = made(G)
        sizes = torch.linalg.matrix_norm(Q if Q.dtype == torch.float64 else Q.float()).double()
        return Q if bool((sizes <= most).all()) else self._renewed(G)


def _kind(G: Any) -> str:
    return f"{tuple(G.shape)} {G.dtype} on {G.device}" if isinstance(G, Tensor) else type(G).__name__
