"""Differentiable solves: a Solution in the autograd graph of G and of the numbers of H.

The solve itself runs outside the graph; one function is put around what it found, whose derivative is that of the
optimality condition (see `pullback`). It costs nothing until it is asked for, and exists once: no second derivatives.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icm.curvature.parameter import parameters, plain
from icm.errors import SolveError
from icm.program import Program, SpectralProgram
from icm.solvers.pullback import Answer, pull_back
from icm.solvers.solution import Solution, Status
from icm.solvers.spectrum import SpectralSolution


def needs_grad(program: Program) -> bool:
    """Whether a solution of the program is to be part of an autograd graph."""
    return torch.is_grad_enabled() and (program.source is not None or any(True for _ in parameters(program.H)))


def untracked(program: Program) -> Program:
    """The program with plain numbers in H; itself where it has no others."""
    H = plain(program.H)
    return program if H is program.H else Program(program.G, H, program.ellipsoid)


def attach(solution: Solution, program: Program, reduced: SpectralProgram, found: SpectralSolution) -> Solution:
    """The solution with Q, sigma, g, gain and value as differentiable functions of G and of the numbers of H."""
    k = reduced.g.shape[-1]
    g = reduced.g.reshape(-1, k)
    sigma = found.sigma.nan_to_num(0.0)
    answer = _answer(program, found, g, sigma)
    factors = (reduced.U.reshape(-1, *reduced.U.shape[-2:]), reduced.Vh.reshape(-1, *reduced.Vh.shape[-2:]))
    names = ("Q", "sigma", "g", "gain", "value")
    outputs = tuple(getattr(solution, name).clone() for name in names)
    G = program.G if program.source is None else program.source
    tensors = [number.tensor for _, _, number in parameters(program.H)]
    attached: Any = _Solve.apply(answer, (g, sigma, *factors), outputs, G, *tensors)
    return replace(solution, **dict(zip(names, attached, strict=True)))


def _answer(program: Program, found: SpectralSolution, g: Tensor, sigma: Tensor) -> Answer:
    H = plain(program.H)
    lost = [s in (Status.UNBOUNDED, Status.OVERFLOW, Status.UNDECIDED) for s in found.status]
    zero = sigma.amax(-1) == 0
    second = float(H.second(0.0))
    linear = zero & (g[:, 0] == 0) & (H.initial_slope == 0 and 0 < second < math.inf)
    held = (zero & ~linear)[:, None].expand_as(sigma).clone()
    wall = H.wall if math.isfinite(H.wall) else math.nan
    corner, left, pressure = torch.full_like(g[:, 0], wall), torch.zeros_like(g[:, 0]), torch.zeros_like(g)
    if found.flat is not None:
        why, flat = found.flat.why, found.flat.held
        corner, left, pressure = torch.where(flat, why.radius, corner), why.left, why.pressure
        held |= flat[:, None] | (pressure > 0)
    return Answer(program.H, H, program.dim, held, corner, left, pressure, torch.tensor(lost, device=g.device), linear)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, answer: Answer, spectral: tuple[Tensor, ...], outputs: tuple[Tensor, ...], *inputs: Tensor):
        ctx.answer, ctx.inputs = answer, inputs  # not saved for backward: their values may change in place
        ctx.save_for_backward(*spectral)
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None):
        (g, sigma, U, Vh), inputs = ctx.saved_tensors, ctx.inputs
        with torch.no_grad():
            found = pull_back(ctx.answer, g, sigma, U, Vh, cotangents, ctx.needs_input_grad[3])
            if found[0] is not None:
                found[0] = found[0].reshape(inputs[0].shape)
            found = [None if t is None else t.to(x) for t, x in zip(found, inputs, strict=True)]
        if torch.is_grad_enabled():  # for a graph of the gradient: it ends here, and says so
            found = [None if t is None else _Once.apply(t, *inputs) for t in found]
        return None, None, None, *found


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor):
        raise SolveError(
            "solve is differentiable once, and this asks for a second derivative: take differences of first ones, "
            "or leave out create_graph=True"
        )
