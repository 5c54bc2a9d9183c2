"""A small part of LaTeX as MathML, which browsers set without scripts or fonts of their own."""

from __future__ import annotations

import re
from html import escape

SYMBOLS = {
    **{"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε", "zeta": "ζ"},
    **{"eta": "η", "theta": "θ", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ"},
    **{"sigma": "σ", "tau": "τ", "phi": "ϕ", "varphi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "ell": "ℓ"},
    **{"infty": "∞"},
    **{"Gamma": "Γ", "Delta": "Δ", "Lambda": "Λ", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω", "Xi": "Ξ"},
}
OPERATORS = {
    **{"le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "sim": "∼", "propto": "∝"},
    **{"to": "→", "mapsto": "↦", "implies": "⟹", "impliedby": "⟸", "iff": "⟺", "Rightarrow": "⇒", "rightarrow": "→"},
    **{"in": "∈", "notin": "∉", "subset": "⊂", "subseteq": "⊆", "cup": "∪", "cap": "∩", "forall": "∀", "exists": "∃"},
    **{"cdot": "·", "times": "×", "pm": "±", "mp": "∓", "circ": "∘", "otimes": "⊗", "oplus": "⊕", "odot": "⊙"},
    **{"nabla": "∇", "partial": "∂", "sum": "∑", "prod": "∏", "int": "∫", "top": "⊤", "star": "⋆", "dagger": "†"},
    **{"perp": "⊥", "angle": "∠", "#": "#"},
    **{"langle": "⟨", "rangle": "⟩", "|": "‖", "Vert": "‖", "lVert": "‖", "rVert": "‖", "vert": "|", "mid": "|"},
    **{"ldots": "…", "dots": "…", "cdots": "⋯", "prime": "′", "succ": "≻", "succeq": "⪰", "prec": "≺", "preceq": "⪯"},
    **{"{": "{", "}": "}", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "gg": "≫", "ll": "≪"},
    **{"equiv": "≡"},
}
NAMES = {"min", "max", "sup", "inf", "arg", "log", "ln", "exp", "cos", "sin", "det", "dim", "ker", "lim", "Pr"}
WIDE = {"sum", "prod", "min", "max", "sup", "inf", "lim"}  # scripts go below and above
SPACES = {",": "0.17em", ";": "0.28em", ":": "0.22em", " ": "0.28em", "!": "-0.17em", "quad": "1em", "qquad": "2em"}
ACCENTS = {"hat": "^", "tilde": "~", "bar": "¯", "overline": "¯", "dot": "˙", "widehat": "^", "widetilde": "~"}
LETTERS = {"E": "𝔼", "R": "ℝ", "P": "ℙ", "N": "ℕ", "S": "𝕊"}
TEXTS = {"text", "mathrm", "operatorname", "textrm", "mbox"}
PLAIN = {"left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "displaystyle", "textstyle", "limits"}

TOKEN = re.compile(r"\\(?:[A-Za-z]+|.)|\d+(?:\.\d+)?|\s+|.", re.DOTALL)


class Unknown(ValueError):
    """LaTeX that this small part of it does not have."""


def mathml(latex: str) -> str | None:
    """`latex` as a <math> element, None where it has something in it that is not known here."""
    try:
        parser = _Parser(TOKEN.findall(latex))
        row = parser.row("")
    except Unknown:
        return None
    return f'<math display="block"><mrow>{row}</mrow></math>'


class _Parser:
    """Recursive descent over the tokens; every method consumes what it returns."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.at = tokens, 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise Unknown("the formula ends too early")
        self.at += 1
        return token

    def row(self, end: str) -> str:
        """Elements up to the token `end`, which is consumed too."""
        found = []
        while self.peek() != end:
            if self.peek().isspace():
                self.take()
            else:
                found.append(self.scripted())
        if end:
            self.take()
        return "".join(found)

    def scripted(self) -> str:
        """An element with what stands below and above it."""
        wide = self.peek().lstrip("\\") in WIDE and self.peek().startswith("\\")
        base, scripts = self.atom(), {}
        while self.peek() in ("_", "^", "'"):
            mark = self.take()
            script = "<mo>′</mo>" if mark == "'" else self.argument()
            place = "^" if mark == "'" else mark
            scripts[place] = f"<mrow>{scripts[place]}{script}</mrow>" if place in scripts else script
        below, above = ("munder", "mover") if wide else ("msub", "msup")
        if len(scripts) == 2:
            both = "munderover" if wide else "msubsup"
            return f"<{both}>{base}{scripts['_']}{scripts['^']}</{both}>"
        for mark, element in (("_", below), ("^", above)):
            if mark in scripts:
                return f"<{element}>{base}{scripts[mark]}</{element}>"
        return base

    def argument(self) -> str:
        """One element: a group in braces, or the next atom."""
        while self.peek().isspace():
            self.take()
        if self.peek() == "{":
            self.take()
            return f"<mrow>{self.row('}')}</mrow>"
        if len(digits := self.peek()) > 1 and digits.isdigit():  # \tfrac12 is one half
            self.tokens[self.at : self.at + 1] = [digits[0], digits[1:]]
        return self.atom()

    def words(self) -> str:
        """The plain text of a group."""
        if self.take() != "{":
            raise Unknown("a text without braces")
        found = ""
        while (token := self.take()) != "}":
            if token.startswith("\\") or token in "{$":
                raise Unknown(f"{token} in a text")
            found += token
        return found

    def atom(self) -> str:
        token = self.take()
        if token == "{":
            return f"<mrow>{self.row('}')}</mrow>"
        if token.startswith("\\"):
            return self.command(token[1:])
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token.isalpha():
            return f"<mi>{escape(token)}</mi>"
        if token in "_^'}&$#%~":
            raise Unknown(f"{token} out of place")
        return f"<mo>{escape({'-': '−', '*': '∗'}.get(token, token))}</mo>"

    def command(self, name: str) -> str:
        if name in SYMBOLS:
            return f"<mi>{SYMBOLS[name]}</mi>"
        if name in OPERATORS:
            return f"<mo>{escape(OPERATORS[name])}</mo>"
        if name in NAMES:
            return f"<mo>{name}</mo>"
        if name in SPACES:
            return f'<mspace width="{SPACES[name]}"></mspace>'
        if name in ("frac", "tfrac", "dfrac"):
            return f"<mfrac>{self.argument()}{self.argument()}</mfrac>"
        if name == "sqrt":
            if self.peek() == "[":
                raise Unknown("a root with an index")
            return f"<msqrt>{self.argument()}</msqrt>"
        if name in ACCENTS:
            return f'<mover accent="true">{self.argument()}<mo>{ACCENTS[name]}</mo></mover>'
        if name in TEXTS:
            return f"<mtext>{escape(self.words()).replace(' ', '&#160;')}</mtext>"
        if name in ("mathbb", "mathbf", "mathcal"):
            words = self.words() if self.peek() == "{" else self.take()
            return f"<mi>{escape(LETTERS.get(words, words) if name == 'mathbb' else words)}</mi>"
        if name in PLAIN:
            return "<mrow></mrow>" if self.peek() != "." else (self.take(), "<mrow></mrow>")[1]
        raise Unknown(f"\\{name}")
