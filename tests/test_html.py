"""The page of a report: one file that stands alone, with every claim, its evidence and the pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from icm.errors import FileError
from icm.html import write_html
from icm.mathml import mathml
from icm.page import inline_svg
from icm.theory import CLAIMS, Claim, Expected, verify

VOID = {"meta", "br"}


class Balance(HTMLParser):
    """Notes tags that do not match, ids, and what elements refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "srcset", "data", "action"):
                self.targets.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[str]:
    """The page of three claims and a strange one, with fewer points in its pictures than users get."""
    with pytest.MonkeyPatch.context() as patch:
        for name, values in {"ASPECTS": (0.5, 1, 4), "JUMPS": (10.0, 100.0), "EXPONENTS": (0.0, 1.0, 4.0)}.items():
            patch.setattr(f"icm.plots.claims.{name}", values)
        yield written(tmp_path_factory)


def written(tmp_path_factory) -> str:
    strange = Claim(
        "strange", "a <b>bold</b> & wide claim", lambda case: -case.sigma[:, 0], latex=r"\unknown{x} < 1",
        source="<nobody>", expected=Expected.FAILS,
    )  # fmt: skip
    names = "homogenisation", "newton-schulz-monotone", "cap"  # a picture is named cap too
    report = verify([*names, strange], 30, proofs=False)
    path = write_html(report, tmp_path_factory.mktemp("page") / "report.html")
    return path.read_text(encoding="utf-8")


def test_the_page_is_whole_and_refers_to_nothing_outside(page):
    found = Balance()
    found.feed(page)
    assert (found.faults, found.open) == ([], [])
    assert all(target.startswith("#") for target in found.targets)
    assert {target[1:] for target in found.targets} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert "script" not in found.counts
    assert not re.search(r"https?://|url\((?!#)|@import", page)


def test_the_page_shows_every_claim_and_four_pictures(page):
    assert page.count("<svg") == 4
    for name in ("homogenisation", "newton-schulz-monotone", "cap", "strange"):
        assert f'id="{name}"' in page
        assert f'href="#{name}"' in page
    assert "certified" in page
    assert "icm verify --replay icm-witnesses/newton-schulz-monotone.json" in page
    assert "not public" in page


def test_text_is_escaped(page):
    assert "<b>bold" not in page
    assert "a &lt;b&gt;bold&lt;/b&gt; &amp; wide claim" in page
    assert "<code>\\unknown{x} &lt; 1</code>" in page  # as it is, where MathML is not known


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    report = verify("homogenisation", 5, proofs=False)
    with pytest.raises(FileError, match="create it first"):
        write_html(report, tmp_path / "nowhere" / "page.html")


def test_every_formula_of_the_claims_is_set():
    assert [name for name, claim in CLAIMS.items() if not claim.latex or mathml(claim.latex) is None] == []


def test_formulas():
    assert mathml(r"\sqrt{x_i^2} \le \tfrac12") == (
        '<math display="block"><mrow><msqrt><mrow><msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup></mrow></msqrt>'
        "<mo>≤</mo><mfrac><mn>1</mn><mn>2</mn></mfrac></mrow></math>"
    )
    for unknown in (r"\begin{x}", "a_", "{", r"\text{$}"):
        assert mathml(unknown) is None


def test_pictures_do_not_share_names():
    from matplotlib.figure import Figure

    figures = []
    for name in ("one", "two"):
        figure = Figure()
        figure.subplots().plot([0, 1], label="x")
        figures.append(inline_svg(figure, name))
    first, second = (set(re.findall(r'id="([^"]+)"', svg)) for svg in figures)
    assert first
    assert not first & second
