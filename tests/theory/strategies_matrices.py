"""Instances together with the matrices, points or steps that a claim looks at beside the gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from torch import Tensor

from icm.theory import Claim
from icm.theory.instances import Instances

seeds = st.integers(0, 2**32 - 1)


def batch(claim: Claim, seed: int, size: int = 20) -> Instances:
    """Instances from the claim's own generator."""
    return claim.draw(np.random.default_rng(seed), size)


@st.composite
def with_extra(
    draw: st.DrawFn,
    gradients: st.SearchStrategy[Instances],
    extra: Callable[[np.random.Generator, Instances], Mapping[str, Tensor]],
) -> Instances:
    """Gradients as hypothesis draws them, and what `extra` adds to each from a drawn seed."""
    instance = draw(gradients)
    return replace(instance, extra=dict(extra(np.random.default_rng(draw(seeds)), instance)))
