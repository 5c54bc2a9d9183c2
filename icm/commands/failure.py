"""The one way in which a command fails: `error: …` on stderr."""

from __future__ import annotations

from icm import errors

EXPECTED = tuple(e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception))


def complain(message: str) -> None:
    """`error: message` on stderr, in lines as long as they are."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, highlight=False).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
