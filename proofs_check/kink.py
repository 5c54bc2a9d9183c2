"""When a kink makes an exactly orthogonal update optimal: m ≥ n, and H with slopes A < B left and right of r̃.

Q = r̃UVᵀ has ‖Qζ‖ = r̃ for every ζ, and is optimal exactly if some ξ: sphere → [A, B] has E[ξζ_i²] = g_i, that is if

    ⟨g, v⟩ ≤ A·mean(v) + (B − A) h(v)   for all v ∈ R^n,      h(v) = E(Σ v_iζ_i²)₊.

Source: Su, arXiv 2511.00674, Theorem 2 and Proposition 3.4; docs/theory.md, sections 4 and 10.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, reals, zero
from proofs_check.convexity import DIFFERENTIATION
from proofs_check.proof import Proof
from proofs_check.sphere import MOMENTS, OPEN_SETS, POSITIVE_MEAN, moment
from proofs_check.stationarity import REFLECTED
from proofs_check.step import Step, cited, symbolic


def on_the_kink(power: int = 2) -> str:
    """s = r̃²Σζ_i² = r̃² at σ = r̃(1, …, 1), k = n."""
    r = positives("r")[0]
    one, rest = nonnegatives("y c")
    return zero((r**2 * one + r**power * rest).subs(rest, 1 - one) - r**2, "split off one index, Σζ_i² = 1")


def direction(factor: int = 1) -> str:
    """d‖Qζ‖/dt = r̃Σv_iζ_i² at t = 0 along σ = r̃(1 + tv).

    Split off one index with y = ζ_i²: the others add 1 − y + 2tc + t²e to s/r̃², c = Σv_jζ_j², e = Σv_j²ζ_j².
    """
    import sympy as sp

    (r,) = positives("r")
    t, v, y, c, e = reals("t v y c e")
    length = r * sp.sqrt((1 + t * v) ** 2 * y + (1 - y) + 2 * t * c + t**2 * e)
    slope = sp.simplify(sp.diff(length, t).subs(t, 0))
    return zero(slope - factor * r * (v * y + c), "the derivative in every dimension")


def one_sided(plus: int = 1) -> str:
    """H moves by B d to the right and by A d to the left: A d + (B − A) d₊ for every real d."""
    left, right = reals("A B")
    (up,) = positives("up")
    for d, part, slope in ((up, up, right), (-up, 0, left), (0 * up, 0, left)):
        zero(slope * d - left * d - plus * (right - left) * part, f"d = {d}")
    return "d > 0, d < 0 and d = 0"


def support(sign: int = 1) -> str:
    """A d + (B − A)d₊ − ξd ≥ 0 for A ≤ ξ ≤ B, and 0 at ξ = A + (B − A)1{d > 0}."""
    left = reals("A")[0]
    up, low, high = nonnegatives("up p q")
    xi, right = left + low, left + low + sign * high
    nonnegative(left * up + (right - left) * up - xi * up, "d > 0")
    nonnegative(-left * up + xi * up, "d ≤ 0")
    zero(left * up + (right - left) * up - right * up, "equality at ξ = B for d > 0")
    return zero(-left * up - left * (-up), "equality at ξ = A for d ≤ 0, and the bound for A ≤ ξ ≤ B")


def gap(sign: int = 1) -> str:
    """The derivative of f − ⟨g, ·⟩ along r̃v is r̃ times right minus left side of the criterion; r̃ > 0 keeps its sign."""
    r, n = positives("r n")
    left, jump, mean, h, inner = reals("A J mean h gv")
    moved = r * n * mean * moment(1, n=n)  # E d = r̃Σv_i E ζ_i², Σv_i = n·mean(v)
    derivative = left * moved + jump * r * h - r * inner
    return zero(derivative / r - (left * mean + sign * jump * h - inner), "F′(r̃1; r̃v)/r̃")


def flat_slopes(jump: int = 0) -> str:
    """Without a jump A = B the criterion at v = ±e_i leaves (g_i − A/n)² = −s₊s₋ ≤ 0 of its slacks s₊, s₋ ≥ 0."""
    n, h = positives("n h")
    slope, g = reals("A g")
    right = slope / n + jump * h - g
    left = -slope / n + jump * h + g
    return zero((g - slope / n) ** 2 + right * left, "(g_i − A/n)² + s₊s₋")


def some_positive(sign: int = 1) -> str:
    """⟨q, v⟩ = −Σq_i|v_i| < 0 for v ≤ 0 with one entry v_j = −a < 0; the others add −c ≤ 0."""
    q, a = positives("q a")
    (others,) = nonnegatives("c")
    return positive(-sign * (-q * a - others), "−⟨q, v⟩ > 0")


def enough(sign: int = 1) -> str:
    """(B−A)h − ⟨q, v⟩ ≥ 0 for B − A = J + d and ⟨q, v⟩ = Jh − e, e ≥ 0, with A·mean(v) taken into ⟨q, v⟩."""
    jump, h, d, e = nonnegatives("J h d e")
    n = positives("n")[0]
    left, g, v = reals("A g v")
    zero(left * v / n - g * v + (g - left / n) * v, "A·mean(v) − ⟨g, v⟩ = −⟨q, v⟩, the terms of v_i")
    return nonnegative((jump + d) * h - (jump * h - sign * e), "(J + d)h(v) − ⟨q, v⟩")


def positive_hinge(at: int = 1) -> str:
    """Σv_jζ_j² = v_i at ζ = e_i, where the others' ζ_j² are 0."""
    (v,), (others,) = positives("v_i"), reals("v_j")
    return positive(v * at**2 + others * (1 - at**2), "the form at e_i")


def continuous(bound: int = 1) -> str:
    """|x₊ − y₊| ≤ |x − y|: both ≥ 0, both ≤ 0, and x = p ≥ 0 ≥ y = −q."""
    p, q = nonnegatives("p q")
    for apart, change in ((p, p), (p, 0), (p + q, p)):
        nonnegative(bound * apart - change, "|x − y| − |x₊ − y₊|, x₊ ≥ y₊")
    return "all signs of x and y"


def degree(power: int = 1) -> str:
    """⟨q, tv⟩/h(tv) = ⟨q, v⟩/h(v), as (td)₊ = td₊ for t > 0."""
    t, h, up = positives("t h up")
    inner = reals("qv")[0]
    zero(t * up - t**power * up, "(td)₊ = t d₊ for d > 0; both are 0 for d ≤ 0")
    return zero(t * inner / (t * h) - inner / h, "the quotient at tv")


def mean_of_permutations(fewer: int = 1) -> str:
    """(k−1)! of the k! permutations put σ_j in place i, for every i and j: the mean there is Σσ_j (k−1)!/k!."""
    import sympy as sp

    k, total = positives("k S")
    share = sp.gamma(k + 1 - fewer) / sp.gamma(k + 1)
    return zero(sp.gammasimp(total * share) - total / k, "the mean in any place with symbol k")


def exchange(sign: int = 1) -> str:
    """An exchange of σ_i and σ_j in s is undone by one of ζ_i and ζ_j, and keeps gσ_i + gσ_j."""
    first, second, x, y, rest, g = reals("s_i s_j x y c g")
    s = first**2 * x + second**2 * y + rest
    swapped = s.subs({first: second, second: first, x: y, y: x}, simultaneous=True)
    zero(s - swapped, "s with both exchanges")
    gain = g * first + g * second
    return zero(gain - sign * gain.subs({first: second, second: first}, simultaneous=True), "s and the gain")


def room(sign: int = 1) -> str:
    """q = g − A/n > 0 exactly if A < n g, A = n g − d."""
    n, g, d = positives("n g d")
    return positive(g - (n * g - sign * d) / n, "q_i = d/n > 0 for A = n g_i − d")


CRITERION: tuple[Step, ...] = (
    *MOMENTS,
    *DIFFERENTIATION,
    symbolic("on-the-kink", "‖Qζ‖ = r̃ for every ζ if Q = r̃UVᵀ, m ≥ n.", on_the_kink),
    symbolic("direction", "Along σ = r̃(1 + tv) the length moves by d = r̃Σv_iζ_i².", direction),
    symbolic("one-sided", "H moves by Ad + (B−A)d₊.", one_sided),
    symbolic("gap", "So (f − ⟨g, ·⟩)′(r̃1; r̃v) = r̃(A·mean(v) + (B−A)h(v) − ⟨g, v⟩), E ζ_i² = 1/n.", gap),
    REFLECTED,
    cited(
        "first-order",
        "A finite convex function has a minimum at r̃1 exactly if its derivatives there along all v are ≥ 0.",
        "Rockafellar, Convex Analysis, Theorem 23.2 and section 27",
    ),
)
CRITERION_NEEDS = ("convexity", "alignment")  # f − ⟨g, ·⟩ is convex, and r̃UVᵀ optimal exactly if r̃1 is
SUPPORT: tuple[Step, ...] = (
    symbolic("support", "max over ξ ∈ [A, B] of ξd is Ad + (B−A)d₊, at ξ = A + (B−A)1{d > 0}.", support),
    cited(
        "alaoglu",
        "{ξ: A ≤ ξ ≤ B} is convex and weak-* compact in L^∞ of the sphere, being closed and bounded.",
        "Banach and Alaoglu; Rudin, Functional Analysis, Theorem 3.15",
    ),
    cited(
        "image",
        "So is its image {(E[ξζ_i²])_i} under a linear map that is weak-* continuous, as ζ_i² is in L¹.",
        "definition of the weak-* topology; continuous images of compact sets are compact",
    ),
    cited(
        "hull",
        "A vector is in a closed convex set exactly if it lies below the support function everywhere.",
        "Rockafellar, Convex Analysis, Theorem 13.1",
    ),
)

FINITE: tuple[Step, ...] = (
    symbolic("room", "A < n min g leaves q = g − A/n > 0.", room),
    symbolic("some-positive", "v ≤ 0, v ≠ 0 has ⟨q, v⟩ < 0: if ⟨q, v⟩ ≥ 0 and v ≠ 0, some v_i > 0.", some_positive),
    OPEN_SETS,
    POSITIVE_MEAN,
    symbolic(
        "positive-hinge",
        "Some v_i > 0 makes Σv_jζ_j² = v_i > 0 at ζ = e_i, positive nearby, as it is continuous, and so h(v) > 0.",
        positive_hinge,
    ),
    symbolic("continuous", "|h(v) − h(w)| ≤ E Σ|v_i − w_i|ζ_i²: h is continuous.", continuous),
    symbolic("degree", "⟨q, v⟩/h(v) is homogeneous of degree 0: ‖v‖ = 1 is enough.", degree),
    cited(
        "maximum",
        "On the compact set ‖v‖ = 1, ⟨q, v⟩ ≥ 0, the continuous ⟨q, v⟩/h(v) has a finite maximum J; else it is < 0.",
        "Weierstrass: a continuous function on a compact set attains its maximum",
    ),
)

ORTHOGONALISATION = Proof(
    "orthogonalisation",
    "r̃UVᵀ is optimal iff some ξ ∈ [A, B] has E[ξζ_i²] = g_i; for g > 0 and A < n min g every "
    "B ≥ A + J(g − A/n) does it, J(q) = max ⟨q, v⟩/h(v) < ∞.",
    "Su, arXiv 2511.00674, Theorem 2; docs/theory.md, section 10, (10)",
    (
        *CRITERION,
        *SUPPORT,
        *FINITE,
        symbolic("enough", "B ≥ A + J makes the criterion hold for every v.", enough),
    ),
    needs=CRITERION_NEEDS,
)
KINK_NEEDED = Proof(
    "kink-needed",
    "If cUVᵀ, c > 0, is optimal and H is differentiable at c, all g_i are equal; for equal g_i, if there is an "
    "optimum, some cUVᵀ is one.",
    "Su, arXiv 2511.00674, Proposition 3.4; docs/theory.md, section 4",
    (
        *CRITERION,
        symbolic(
            "flat-slopes",
            "k = n, A = B (H differentiable at c): the criterion at v = ±e_i leaves g_i = A/n.",
            flat_slopes,
        ),
        symbolic("exchange", "g_i = g_j: an optimal σ stays optimal if σ_i and σ_j are exchanged.", exchange),
        cited("generated", "Exchanges generate all permutations.", "Knuth, The Art of Computer Programming 3, 5.2.2"),
        cited(
            "minima",
            "The minima of a convex function are a convex set, which contains the means of its points.",
            "Rockafellar, Convex Analysis, Theorem 4.6",
        ),
        symbolic("mean", "The mean of σ over all k! permutations has equal entries Σσ_j/k.", mean_of_permutations),
    ),
    needs=(*CRITERION_NEEDS, "wide-never-orthogonal"),
)
PROOFS = (ORTHOGONALISATION, KINK_NEEDED)
