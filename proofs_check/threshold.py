"""How large the jump has to be: B(A) = A + J(g − A/n), J(q) = max ⟨q, v⟩/h(v), and bounds that need no search.

    necessary:   A ≤ n min g,  B ≥ n max g,
    sufficient:  A ≤ (n/2)((n+2) min g − Σg),  B ≥ (n/2)((n+2) max g − Σg),

the second by ξ(ζ) = (n/2) Σ ((n+2)g_i − Σg) ζ_i². Source: docs/theory.md, section 10, (11).
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, reals, same, zero
from proofs_check.balls import duality
from proofs_check.kink import CRITERION, CRITERION_NEEDS, FINITE, SUPPORT
from proofs_check.proof import Proof
from proofs_check.sphere import moment
from proofs_check.step import enclosed, exact, symbolic


def closed_form(shift: int = 2) -> str:
    """E[ξζ_i²] = g_i for ξ = (n/2)Σ((n+2)g_j − τ)ζ_j², τ = Σg; the other g_j sum to τ − g_i, and there are n − 1."""
    n, g, total = positives("n g tau")
    own = (n + shift) * g - total
    others = (n + shift) * (total - g) - (n - 1) * total
    found = n / 2 * (own * moment(2, n=n) + others * moment(1, 1, n=n))
    return zero(found - g, "with symbols n, g_i, τ")


def counted(n: int, shift: int = 2) -> str:
    """The same with every term of the sum written out, in dimension n."""
    import sympy as sp

    g = positives(" ".join(f"g{i}" for i in range(n)))
    dim = sp.Integer(n)
    for i in range(n):
        terms = (
            ((n + shift) * g[j] - sum(g)) * (moment(2, n=dim) if i == j else moment(1, 1, n=dim)) for j in range(n)
        )
        zero(sum(terms) * dim / 2 - g[i], f"n = {n}, i = {i}")
    return f"n = {n}"


def all_counted(largest: int = 5) -> str:
    for n in range(2, largest + 1):
        counted(n)
    return f"symbols for all g_i, n ≤ {largest}"


def extremes(sign: int = 1) -> str:
    """Σc_iζ_i² − min c = Σ(c_i − min c)ζ_i² ≥ 0 as Σζ_i² = 1, c_i = (n/2)((n+2)g_i − τ): rising in g_i."""
    n, square = positives("n y")
    low, total = reals("g_min tau")
    (gap,) = nonnegatives("d")
    c, least = (n / 2 * ((n + 2) * x - total) for x in (low + sign * gap, low))
    nonnegative(c - least, "c_i ≥ (n/2)((n+2) min g − τ)")
    return nonnegative((c - least) * square, "each term of ξ − min c; the maximum likewise")


def bracket(sign: int = 1) -> str:
    """(ξ − A)ζ_i² ≥ 0 and (B − ξ)ζ_i² ≥ 0 under E, with E ζ_i² = 1/n: A/n ≤ g_i ≤ B/n."""
    n, square = positives("n y")
    left = reals("A")[0]
    low, high = nonnegatives("p q")
    xi = left + sign * low
    right = xi + sign * high
    nonnegative((xi - left) * square, "(ξ − A)ζ_i²")
    nonnegative((right - xi) * square, "(B − ξ)ζ_i²")
    return same(left * moment(1, n=n), left / n, "E[Aζ_i²] = A/n, so n g_i − A = nE[(ξ − A)ζ_i²] ≥ 0")


def rearranged(sign: int = 1) -> str:
    """A·mean(v) + (B−A)h − ⟨g, v⟩ = (B−A)h − ⟨g − A/n, v⟩: the terms of one index."""
    n = positives("n")[0]
    left, right, h, g, v = reals("A B h g v")
    criterion = left * v / n + (right - left) * h - g * v
    return zero(criterion - ((right - left) * h - (g - sign * left / n) * v), "the terms of v_i")


def least_jump(sign: int = 1) -> str:
    """(J + d)h − ⟨q, v⟩ ≥ 0 for d ≥ 0 and ⟨q, v⟩ = Jh − e, e ≥ 0; at the maximiser e = 0 a smaller jump fails."""
    h, jump = positives("h J")
    d, e = nonnegatives("d e")
    inner = jump * h - e
    nonnegative((jump + sign * d) * h - inner, "(J + d)h(v) ≥ ⟨q, v⟩")
    (less,) = positives("less")
    return positive(jump * h - (jump - sign * less) * h, "(J − less)h(v) < ⟨q, v⟩ at the maximiser")


def along_axes(sign: int = 1) -> str:
    """The derivative over r̃ is B/n − g_1 along e_1, where h = E ζ_1² = 1/n, and g_n − A/n along −e_n, where h = 0."""
    n = positives("n")[0]
    left, right, g = reals("A B g")
    h = moment(1, n=n)
    zero(left / n + (right - left) * h - g - (right / n - g), "along e_1")
    return zero(-left / n + sign * g - (g - left / n), "along e_1 and −e_n")


def no_hinge(sign: int = -1) -> str:
    """v ≤ 0 has ⟨q, v⟩ ≤ 0 for q ≥ 0: no condition on B."""
    q, size = nonnegatives("q v")
    return nonnegative(-(q * (sign * size)), "−q_iv_i for v_i = −|v_i|")


def lower_hinge(sign: int = 1) -> str:
    """d₊ − 1_S d ≥ 0 for any set S: J·E[1_Sζ_i²] = q_i gives ⟨q, v⟩ = J·E[1_S Σv_iζ_i²] ≤ J·h(v)."""
    (up,) = nonnegatives("up")
    for d, part in ((up, up), (-up, 0)):
        for inside in (0, 1):
            nonnegative(part - sign * inside * d, f"d = {d}, 1_S = {inside}")
    return "d₊ − 1_S d for both signs of d, inside and outside S"


def two_dimensions(half: int = 2) -> str:
    """n = 2, S = {θ < θ₀}, ζ_1² = cos²θ, θ uniform on (0, π/2): E[1_S ζ²] = (φ ± sin φ)/2π with φ = 2θ₀.

    So q_1/q_2 = (φ + sin φ)/(φ − sin φ) has J = π(q_1 + q_2)/φ; the form v = (sin²θ₀, −cos²θ₀) is positive on S only.
    """
    import sympy as sp

    theta, end, phi = positives("theta theta_0 phi")
    parts = []
    for square, sign in ((sp.cos(theta) ** 2, 1), (sp.sin(theta) ** 2, -1)):
        part = sp.integrate(square, (theta, 0, end)) * 2 / sp.pi
        claim = (phi + sign * sp.sin(phi)) / (half * sp.pi)
        zero(sp.simplify(part.subs(end, phi / 2) - claim), "E[1_S ζ_i²]")
        parts.append(claim)
    zero(sp.pi * sum(parts) / phi - 1, "J = π(q_1 + q_2)/φ with q = E[1_S ζ²] has J = 1")
    form = sp.sin(end) ** 2 * sp.cos(theta) ** 2 - sp.cos(end) ** 2 * sp.sin(theta) ** 2
    return zero(form - sp.sin(end - theta) * sp.sin(end + theta), "integrals in θ₀, and the sign of the form")


BOUNDS = Proof(
    "threshold-bounds",
    "r̃UVᵀ optimal needs A ≤ n min g, B ≥ n max g; A ≤ (n/2)((n+2)min g − Σg), B ≥ (n/2)((n+2)max g − Σg) suffice.",
    "docs/theory.md, section 10",
    (
        *CRITERION,
        *SUPPORT,
        symbolic("bracket", "A ≤ ξ ≤ B gives A/n ≤ E[ξζ_i²] ≤ B/n.", bracket),
        symbolic("along-axes", "F falls along e_1 if B < n max g, and along −e_n if A > n min g.", along_axes),
        symbolic("closed-form", "ξ = (n/2)Σ((n+2)g_j − Σg)ζ_j² has E[ξζ_i²] = g_i.", closed_form),
        symbolic("extremes", "Its values lie between (n/2)((n+2)min g − Σg) and (n/2)((n+2)max g − Σg).", extremes),
        exact("counted", "E[ξζ_i²] = g_i with every term written out.", all_counted, "n ≤ 5"),
    ),
    needs=CRITERION_NEEDS,
)
EXACT_THRESHOLD = Proof(
    "threshold-exact",
    "For g > 0 and A < n min g, r̃UVᵀ is optimal iff B ≥ A + J(g − A/n), J(q) = max ⟨q, v⟩/h(v); for A > n min g it is "
    "not.",
    "docs/theory.md, section 10, (11)",
    (
        *CRITERION,
        symbolic("rearranged", "The criterion reads ⟨q, v⟩ ≤ (B−A)h(v) for all v, q = g − A/n > 0.", rearranged),
        symbolic("no-hinge", "Where h(v) = 0, v ≤ 0, it holds for every B.", no_hinge),
        *FINITE,
        symbolic("least-jump", "B − A ≥ J is enough for every v, and B − A < J fails at the maximiser.", least_jump),
        symbolic("lower-hinge", "Any S with J·E[1_Sζ_i²] = q_i has ⟨q, v⟩ ≤ J·h(v) for all v.", lower_hinge),
        exact("two-dimensions", "J = π(q_1 + q_2)/φ, q_1/q_2 = (φ + sin φ)/(φ − sin φ).", two_dimensions, "n = 2"),
        enclosed("duality", "q = ∇h(v) has J(q) = 1, attained at v.", duality, "one v each for n = 2, 3, 4"),
    ),
    needs=(*CRITERION_NEEDS, "threshold-bounds"),
)
PROOFS = (BOUNDS, EXACT_THRESHOLD)
