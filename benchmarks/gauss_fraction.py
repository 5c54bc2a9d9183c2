"""₂F₁(½, 1; n/2+1; −x) in ball arithmetic, off the negative axis beyond −1, for n from 1 to many thousands."""

from flint import acb, arb, ctx


def hypergeometric(x: acb, dim: int) -> acb:
    """F = ₂F₁(½, 1; n/2+1; −x) by Gauss's fraction for small |x|/n, by Arb's own function for large, which loses
    about n/|x| bits; guard bits are doubled until little else is lost.

    They serve the middle of x alone. As F is a mean of 1/(1 + xt), t ∈ [0, 1], its radius adds |δx/x|/sin² at most,
    where sin = 1 if Re x ≥ 0, else |sin arg x|.
    """
    middle, sine = acb(x.real.mid(), x.imag.mid()), arb(1) if x.real > 0 else abs(x.arg()).sin()
    large = abs(x) > min(dim / 8, 5)
    order = 0 if large else fraction_order(x, dim)
    guard, value = int(dim / float(abs(x).lower())) if large else order, acb(0)
    for doubling in range(5):
        with ctx.workprec(ctx.prec + (guard << doubling)):
            if large:
                value = (-middle).hypgeom_2f1(arb(1) / 2, arb(1), arb(dim) / 2 + 1)
            else:
                value = gauss_fraction(middle, dim, order, sine)
        if value.rel_accuracy_bits() > ctx.prec - 12:
            break
    spread = arb(0, ((x.real.rad() + x.imag.rad()) / abs(x) / sine**2).upper())
    return value + acb(spread, spread)


def gauss_fraction(x: acb, dim: int, order: int, sine: arb) -> acb:
    """₂F₁(½, 1; n/2+1; −x) = 1/(1 + α₁x/(1 + α₂x/(1 + …))), α_m = m(n+m−1)/((n+2m−2)(n+2m)) (Gauss), with error.

    This is a Stieltjes fraction: two convergents differ by at least the error of the later one times |sin arg x|,
    or times 1 if Re x ≥ 0 (Henrici & Pfluger, Numer. Math. 9 (1966)), which goes into the radius.
    """
    earlier, later = acb(1), acb(1)
    for m in range(order, 0, -1):
        alpha = x * arb(m * (dim + m - 1)) / ((dim + 2 * m - 2) * (dim + 2 * m))
        later = 1 + alpha / later
        earlier = 1 + alpha / earlier if m < order else earlier
    error = arb(0, (abs(1 / later - 1 / earlier) / sine).upper())
    return 1 / later + acb(error, error)


def fraction_order(x: acb, dim: int) -> int:
    """The number of terms of Gauss's fraction for the working precision, in float64 by Steed's algorithm."""
    sketch = complex(float(x.real.mid()), float(x.imag.mid()))
    inverse, change, total, m = 1.0 + 0j, 1.0 + 0j, 1.0 + 0j, 0
    while abs(change) > 2.0 ** -min(ctx.prec + 8, 1000) * abs(total):
        m += 1
        term = sketch * (m * (dim + m - 1) / ((dim + 2 * m - 2) * (dim + 2 * m))) * inverse
        inverse = 1 / (1 + term)
        change *= -term * inverse
        total += change
    return m
