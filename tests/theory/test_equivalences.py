"""Optimizers followed beside steepest descent; the claims are tried by tests/theory/test_meta.py too."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from icm.errors import MissingPackageError
from icm.theory import CLAIMS, Expected, Rigour, verify
from icm.theory.case import Case
from icm.theory.claims import equivalences, equivalences_signs, equivalences_spectral
from icm.theory.claims.equivalences import InItsNorm, Solved, solved
from icm.theory.claims.equivalences_signs import adam_signs, prodigy
from icm.theory.claims.trained import apart, each, every, networks, trained
from icm.verdicts import pieces, remarks, verdict

FOLLOWED = (*equivalences.CLAIMS, *equivalences_signs.CLAIMS, *equivalences_spectral.CLAIMS)
EXACT = [claim for claim in FOLLOWED if claim.expected is Expected.HOLDS and claim.name != "icm-in-its-norm"]


@pytest.mark.parametrize("claim", EXACT, ids=lambda claim: claim.name)
def test_what_is_exact_stays_together(claim):
    if claim.missing:
        pytest.skip(claim.missing)
    checked = claim.check(claim.draw(np.random.default_rng(11), 3))
    assert not checked.violated.any()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("adam-with-eps", 1e-8, 1e-3),
        ("adam-by-default", 0.05, 2.0),
        ("muon-by-default", 0.05, 0.7),
        ("scion-by-default", 0.05, 0.7),
        ("prodigy-in-float32", 1e-9, 1e-4),
        ("shampoo-with-eps", 1e-4, 0.5),
        ("shampoo-by-default", 0.5, 4.0),
        ("soap-without-eps", 0.01, 1.0),
    ],
)
def test_defaults_lead_away_by_so_much(name, low, high):
    claim = CLAIMS[name]
    if claim.missing:
        pytest.skip(claim.missing)
    checked = claim.check(claim.draw(np.random.default_rng(12), 3))
    assert checked.violated.all()
    assert low < float(checked.margin.min())
    assert float(checked.margin.max()) < high


def case(seed: int = 0, size: int = 2, H: str = "r^2") -> Case:
    return Case(networks(H, shapes=((3, 3),))(np.random.default_rng(seed), size))


def test_the_gradients_are_those_of_the_loss_of_one_network():
    """A run of two networks is that of each by itself, under an optimizer by torch."""
    both, make = case(), each(lambda net: torch.optim.SGD(every(net), 0.05))
    alone = [Case(both.instances[[i]]) for i in range(2)]
    torch.testing.assert_close(trained(both, make, 10), torch.cat([trained(c, make, 10) for c in alone], 1))


def test_training_lowers_the_loss():
    """50 steps of gradient descent by torch move the weights, and to smaller gradients."""
    sizes: list[float] = []

    def look(nets):
        sizes.append(sum(float(p.grad.norm()) for net in nets for p in every(net) if p.grad is not None))

    places = trained(case(3, 4), each(lambda net: torch.optim.SGD(every(net), 0.05)), 50, look)
    assert places.shape == (51, 4, 3 * 3 + 3 + 3 * 3)
    assert sum(sizes[-10:]) < 0.8 * sum(sizes[:10])


def test_a_distance_is_measured_by_the_way_gone():
    run = torch.tensor([0.0, 1.0, 2.0])[:, None, None].expand(3, 2, 1)
    torch.testing.assert_close(apart(run + torch.tensor([0.0, 0.0, 0.5])[:, None, None], run), torch.full((2,), 0.25))


def test_solved_updates_are_those_of_their_norm_for_some_steps():
    made = case(H="r^3.5")
    H = made.H
    ours, theirs = trained(made, solved(H, InItsNorm), 4), trained(made, solved(H, Solved), 4)
    assert float(apart(ours, theirs).max()) < 1e-10


def test_a_run_takes_its_share_of_the_instances():
    result = verify(adam_signs, 500, proofs=False).results[0]
    assert 5 <= result.met <= 20
    assert result.as_expected
    assert adam_signs.share(1) == 1


@pytest.fixture
def without_the_peer(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("icm.theory.claim.find_spec", lambda name: None if name == "pytorch_optimizer" else found(name))


@pytest.mark.usefixtures("without_the_peer")
def test_without_the_package_a_claim_is_skipped_and_says_why():
    report = verify(["prodigy-escalator", "adam-max-entry"], 100, proofs=False)
    skipped = report["prodigy-escalator"]
    assert (skipped.grade, skipped.skipped, skipped.met) == (Rigour.INCONCLUSIVE, True, 0)
    assert report.as_expected
    assert not report["adam-max-entry"].skipped
    assert pieces(skipped) == [(Rigour.INCONCLUSIVE, "skipped")]
    assert verdict(report) == "2 claims, all as expected but 1 skipped"
    assert "not tried, skipped" in str(report)
    told = "\n".join(str(line) for line in remarks(report, Path("witnesses")))
    assert "skipped: the package pytorch_optimizer is not installed: pip install pytorch_optimizer" in told
    assert report.to_dict()["claims"][0]["evidence"][0]["scope"] == "skipped"


@pytest.mark.usefixtures("without_the_peer")
def test_without_the_package_an_instance_cannot_be_tried():
    with pytest.raises(MissingPackageError, match=r"prodigy-escalator.*pip install"):
        prodigy.here(networks()(np.random.default_rng(0), 1))


def test_every_claim_about_another_package_needs_it():
    names = {claim.name for claim in FOLLOWED if claim.needs == "pytorch_optimizer"}
    assert names == {n for n in CLAIMS if n.startswith(("prodigy", "scion", "shampoo", "soap"))}
