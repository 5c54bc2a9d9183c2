"""The shared network keeps its promises: causal, reproducible, named, and quiet about global random state."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from examples import small_lm as lm

TINY = lm.Config(layers=2, width=32, heads=2, context=24)


@pytest.fixture(scope="module")
def data() -> Tensor:
    return lm.corpus(100_000)


@pytest.fixture(autouse=True)
def global_state_stays() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def test_same_seed_same_numbers_whatever_the_global_seed(data: Tensor) -> None:
    def run(seed: int, global_seed: int) -> tuple[list[float], dict[str, Tensor], Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(global_seed)
            state = torch.get_rng_state()
            model = lm.SmallLM(TINY, seed=seed)
            losses = lm.train(model, data, steps=3, batch=4, seed=seed)
            gradients = lm.gradients(model, data, batches=2, seed=seed, batch=4)
            assert torch.equal(torch.get_rng_state(), state)
        return losses, gradients, model.head.weight.detach()

    losses, gradients, head = run(seed=1, global_seed=10)
    again, gradients_again, head_again = run(seed=1, global_seed=20)
    assert losses == again
    assert torch.equal(head, head_again)
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in gradients)
    assert run(seed=2, global_seed=10)[0] != losses


def test_initialisation_has_the_stated_scale() -> None:
    model = lm.SmallLM(lm.Config(), seed=3)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert torch.equal(weight, torch.ones_like(weight)), name
        else:
            writers = 6 if name.endswith(("attention.output.weight", "mlp.down.weight")) else 1
            scaled = weight.detach() * math.sqrt(writers * weight.shape[1])
            assert abs(scaled.std().item() - 1) < 0.03, name  # deviation of the estimate: at most 0.0056


def test_loss_falls_and_progress_hears_it(data: Tensor) -> None:
    heard: list[tuple[int, float]] = []
    losses = lm.train(lm.SmallLM(TINY), data, steps=30, batch=8, progress=lambda step, loss: heard.append((step, loss)))
    assert heard == list(enumerate(losses))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_training_nothing_changes_nothing(data: Tensor) -> None:
    model, untouched = lm.SmallLM(TINY), lm.SmallLM(TINY)
    assert lm.train(model, data, steps=0) == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), untouched.parameters(), strict=True))


def test_loss_terms_are_log_probabilities(data: Tensor) -> None:
    model = lm.SmallLM(TINY).double()
    inputs, targets = next(lm.batches(data, TINY, batch=3, seed=0))
    terms = lm.loss(model, (inputs, targets))
    assert terms.shape == (3, TINY.context)
    expected = -model(inputs).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(terms, expected, rtol=1e-12, atol=1e-12)
    bits = lm.bits_per_byte(model, data, count=1, batch=3, seed=0)
    assert bits == pytest.approx(expected.mean().item() / math.log(2), rel=1e-12)


def test_later_bytes_do_not_change_earlier_logits() -> None:
    model = lm.SmallLM(TINY).double()
    tokens = torch.arange(2 * TINY.context).view(2, -1)
    cut = 10
    changed = tokens.clone()
    changed[:, cut:] = 255 - changed[:, cut:]
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :cut], after[:, :cut], rtol=0, atol=1e-12)
    assert (before[:, cut:] - after[:, cut:]).abs().amax(-1).min() > 1e-3
    torch.testing.assert_close(before[:, :cut], model(tokens[:, :cut]), rtol=0, atol=1e-12)


def test_matrices_have_readable_names_and_are_outputs_by_inputs() -> None:
    model = lm.SmallLM(TINY)
    weights = lm.matrices(model)
    square = {f"blocks.{i}.attention.{role}": (32, 32) for i in (0, 1) for role in ("query", "key", "value", "output")}
    expected = square | {f"blocks.{i}.mlp.up": (128, 32) for i in (0, 1)}
    expected |= {f"blocks.{i}.mlp.down": (32, 128) for i in (0, 1)}
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == expected
    assert all(model.get_submodule(name).weight is weight for name, weight in weights.items())


def test_gradients_are_the_mean_of_autograd_and_leave_grad_alone(data: Tensor) -> None:
    model = lm.SmallLM(TINY).double()
    kept = torch.ones_like(model.head.weight)
    model.head.weight.grad = kept
    gradients = lm.gradients(model, data, batches=3, seed=5, batch=4)
    assert all(p.grad is (kept if p is model.head.weight else None) for p in model.parameters())
    assert {name: g.shape for name, g in gradients.items()} == {
        name: weight.shape for name, weight in lm.matrices(model).items()
    }
    assert not any(g.requires_grad for g in gradients.values())

    by_hand = lm.SmallLM(TINY).double()
    for batch in islice(lm.batches(data, TINY, batch=4, seed=5), 3):
        (lm.loss(by_hand, batch).mean() / 3).backward()
    torch.testing.assert_close(
        gradients["blocks.1.mlp.up"],
        by_hand.get_parameter("blocks.1.mlp.up.weight").grad,
        rtol=1e-10,
        atol=1e-14,
    )


def test_gradient_is_the_slope_of_the_loss(data: Tensor) -> None:
    model = lm.SmallLM(TINY).double()
    batch = next(lm.batches(data, TINY, batch=4, seed=7))
    name = "blocks.0.attention.value"
    gradient = lm.gradients(model, data, batches=1, seed=7, batch=4)[name]
    weight, step = lm.matrices(model)[name], 1e-5 * gradient / gradient.norm()
    with torch.no_grad():
        weight += step
        above = lm.loss(model, batch).mean()
        weight -= 2 * step
        below = lm.loss(model, batch).mean()
    assert ((above - below) / 2e-5).item() == pytest.approx(gradient.norm().item(), rel=1e-6)


def test_batches_are_windows_of_the_data_and_their_successors() -> None:
    data = torch.arange(200, dtype=torch.uint8)
    inputs, targets = next(lm.batches(data, TINY, batch=50, seed=0))
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.shape == targets.shape == (50, TINY.context)
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(TINY.context))

    shortest = torch.arange(TINY.context + 1, dtype=torch.uint8)  # one window, and it is reached
    assert next(lm.batches(shortest, TINY, batch=2, seed=0))[1].max() == TINY.context
    with pytest.raises(ValueError, match="24 bytes hold no window of 25"):
        next(lm.batches(shortest[:-1], TINY))


def test_corpus_is_deterministic_and_split_by_file(tmp_path: Path) -> None:
    assert torch.equal(lm.corpus(50_000), lm.corpus(50_000))
    assert torch.equal(lm.corpus(50_000)[:777], lm.corpus(777))
    assert lm.corpus(777).dtype == torch.uint8

    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_skipped.py").write_text("no")
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / "_sysconfigdata_here.py").write_text("no")
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "last.py").write_text("z")
    for letter in "jihgfedcba":
        (tmp_path / f"{letter}.py").write_text(letter)
    assert bytes(lm.corpus(folder=tmp_path).tolist()) == b"bcdefghij"
    assert bytes(lm.corpus(validation=True, folder=tmp_path).tolist()) == b"az"


def test_missing_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install Python's sources") as caught:
        lm.corpus(folder=tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 30 is not a multiple of heads 4"):
        lm.Config(width=30)


def test_command_line_reports_validation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lm, "Config", lambda: TINY)
    monkeypatch.setattr(sys, "argv", ["small_lm.py", "--steps", "2"])
    lm.main()
    assert "bits per byte before" in capsys.readouterr().out
