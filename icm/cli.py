"""The command line: `icm solve`, `icm verify`, `icm measure`, `icm demo`.

Exit codes: 0 when everything came out as it should: every solve optimal or unbounded, every claim as expected; 1 when
a solve missed its tolerance, --out was asked for and the program is unbounded, so that there is no Q, or a claim came
out otherwise than expected; 2 for anything wrong with what was given; 130 when interrupted. A solve that ends with 1,
and anything that ends with 2, writes no file, but for `icm measure` failing while it measures: it keeps its progress.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from icm.commands.demo import demo
from icm.commands.failure import EXPECTED, complain
from icm.commands.measure import measure
from icm.commands.solve import solve
from icm.commands.verify import verify


class Commands(TyperGroup):
    """The commands, with one way to fail: `error: …` on stderr and exit code 2."""

    def main(self, *args: Any, **options: Any) -> Any:
        words = args[0] if args else options.pop("args", None)
        given = list(sys.argv[1:] if words is None else words) or ["--help"]
        try:
            code = super().main(given, **{**options, "standalone_mode": False})
        except typer.Abort:
            sys.exit(130)
        except (*EXPECTED, OSError) as error:
            complain(str(error))
            sys.exit(2)
        except Exception as error:
            if not hasattr(error, "format_message"):  # typer's usage errors, whichever click it carries
                raise
            complain(f"{error.format_message().rstrip('.')}. See icm --help.")  # type: ignore[attr-defined]
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


def main() -> None:
    """What the console script runs."""
    app(prog_name="icm")


def _version(wanted: bool) -> bool:
    if wanted:
        import icm

        typer.echo(f"icm {icm.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Matrix updates from the isotropic curvature model: min over Q of −Tr(Q Gᵀ) + E H(‖Qζ‖), solved exactly."""


app.command()(solve)
app.command()(verify)
app.command()(measure)
app.command()(demo)


if __name__ == "__main__":
    main()
