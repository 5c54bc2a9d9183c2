"""The documentation runs: its code prints what it says, its commands parse, and the API page names everything."""

from __future__ import annotations

import contextlib
import io
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

import icm
from icm.cli import app
from icm.solvers import Status, Summary

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
RUN = [
    "README.md",
    "docs/guide.md",
    "docs/claims.md",
    "docs/recipes.md",
    "docs/training.md",
    "docs/measuring.md",
    "docs/norms.md",
]  # their ```python; the ```py of recipes is run by test_recipes.py
NOISE = 1e-6  # numbers below are rounding: they differ between machines, and only their smallness is compared


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line it begins on."""

    language: str
    text: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(match[1], match[2], text[: match.start()].count("\n") + 1)


def expected(page: str) -> Iterator[tuple[Block, str | None]]:
    """Every block of code or commands, with the output given for it, if there is one."""
    found = list(blocks(page))
    for block, after in zip_longest(found, found[1:]):
        if block.language == "python":
            yield block, after.text if after is not None and after.language == "text" else None
        elif block.language == "console":
            for part in re.split(r"^(?=\$ )", block.text, flags=re.MULTILINE):
                command, _, output = part.partition("\n")
                if command:
                    line = block.line + block.text[: block.text.index(part)].count("\n") + 1
                    yield Block("console", command.removeprefix("$ "), line), output if output.strip() else None


def words(text: str) -> list[str]:
    """Words and numbers; a number is a word of its own, so that 9.78→8.06 is three."""
    return re.findall(r"-?\d+\.?\d*(?:e[+-]?\d+)?|[^\W\d]+|[^\w\s]", text)


def differences(found: str, given: str) -> list[str]:
    """Where `found` says something else than `given`: words exactly, numbers to 1e-3 or both below NOISE."""
    faults = []
    for a, b in zip_longest(words(found), words(given), fillvalue="(end)"):
        try:
            x, y = float(a), float(b)
        except ValueError:
            same = a == b
        else:
            same = math.isclose(x, y, rel_tol=1e-3) or max(abs(x), abs(y)) < NOISE
        if not same:
            faults.append(f"found {a!r}, the page says {b!r}")
    return faults


def execute(block: Block, names: dict) -> str:
    """What a block prints: Python is run in `names`, an icm command in a runner."""
    if block.language == "console":
        program, *arguments = shlex.split(block.text)
        assert program == "icm"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, f"code block, line {block.line}", "exec"), names)
    return printed.getvalue()


@pytest.mark.parametrize("page", RUN)
def test_the_code_prints_what_the_page_says(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    count = 0
    for block, output in expected((ROOT / page).read_text(encoding="utf-8")):
        found = execute(block, names)
        if output is not None:
            count += 1
            assert differences(found, output) == [], f"{page}, line {block.line}"
    assert count >= 2


@pytest.mark.parametrize("page", RUN)
def test_commands_parse(page: str):
    """Every line that begins with icm, in any block, as the command line would read it; none is run here."""
    group = typer.main.get_command(app)
    lines = [line.removeprefix("$ ") for block in blocks((ROOT / page).read_text("utf-8")) for line in
             block.text.splitlines() if re.match(r"(\$ )?icm ", line)]  # fmt: skip
    assert lines or page != "README.md"
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)[1:]
        command = group.commands[name]  # pyright: ignore[reportAttributeAccessIssue]
        with contextlib.suppress(typer.Exit):  # --help
            command.make_context(name, arguments)


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = "\n".join([block.text for block in blocks(text)] + re.findall(r"`([^`\n]+)`", text))
        named = set(re.findall(r"^ *make ([a-z-]+)", code, re.MULTILINE))
        assert named <= targets, page.name


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_tests_named_in_the_theory_exist():
    sources: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("*.py"):  # two rooms may each have a test_certificate.py
        sources[path.name] = sources.get(path.name, "") + path.read_text(encoding="utf-8")
    named = re.findall(r"`(\w+\.py)::(\w+)`", (ROOT / "docs/theory.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    assert [f"{file}::{name}" for file, name in named if f"def {name}(" not in sources.get(file, "")] == []


def test_the_api_page_names_everything():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    errors = [name for name, value in vars(icm.errors).items() if isinstance(value, type) and value.__module__ ==
              "icm.errors"]  # fmt: skip
    kinds = icm.Solution, icm.Comparison, Summary, icm.measure.Measurement, icm.measure.Step
    attributes = [field.name for kind in kinds for field in fields(kind)]
    names = [
        *icm.__all__,
        *icm.maps.__all__,
        *icm.measure.__all__,
        *icm.norms.__all__,
        *icm.symmetry.__all__,
        *icm.optim.__all__,
        *icm.sphere.__all__,
        *icm.solvers.__all__,
        *icm.theory.__all__,
        *errors,
        *attributes,
        *(s.name for s in Status),
    ]
    code = " ".join(re.findall(r"`([^`\n]+)`", page))
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


def test_the_claims_page_names_every_claim():
    listed = re.findall(r"^- \*\*([\w-]+)\*\* \(", (ROOT / "docs/claims.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == list(icm.theory.CLAIMS)


def test_claims_named_in_the_theory_exist():
    text = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
    named = re.findall(r"\*claims?:\*\s([^.]*)\.", text)
    words = {word for group in named for word in re.findall(r"[a-z]+(?:-[a-z]+)+|\b[a-z]{3,}\b", group)}
    known = words & set(icm.theory.CLAIMS)
    assert len(known) > 30
    assert {word for word in words if "-" in word} <= set(icm.theory.CLAIMS)


def test_lines_fit():
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 120, f"{page.name}, line {number}"


# The checks themselves, given something false.


def test_a_false_page_is_caught():
    assert differences("value -1.0 gap 2e-13", "value -1.0004 gap 7e-13") == []
    assert differences("value -1.0", "value -1.01") == ["found '-1.0', the page says '-1.01'"]
    assert differences("gap 2e-13", "gap 2e-3") == ["found '2e-13', the page says '2e-3'"]
    assert differences("optimal", "stalled") == ["found 'optimal', the page says 'stalled'"]
    assert differences("a b", "a") == ["found 'b', the page says '(end)'"]
    page = "x\n```python\nprint(1)\n```\nso\n```text\n2\n```\n```console\n$ icm a\nout\n$ icm b\n```\n"
    assert list(expected(page)) == [
        (Block("python", "print(1)\n", 2), "2\n"),
        (Block("console", "icm a", 10), "out\n"),
        (Block("console", "icm b", 12), None),
    ]
