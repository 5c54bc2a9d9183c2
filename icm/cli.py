"""The command line: `icm solve`, `icm demo`.

Exit codes: 0 when every solve ended as its table says, optimal or unbounded; 1 when a solve missed its tolerance, or
when --out was asked for and the program is unbounded, so that there is no Q; 2 for anything wrong with what was given.
With 1 and 2 no file is written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperGroup

from icm import errors

EXPECTED = tuple(e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception))


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
            _report(str(error))
            sys.exit(2)
        except Exception as error:
            if not hasattr(error, "format_message"):  # typer's usage errors, whichever click it carries
                raise
            _report(f"{error.format_message().rstrip('.')}. See icm --help.")  # type: ignore[attr-defined]
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


def main() -> None:
    """What the console script runs."""
    app(prog_name="icm")


def _report(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, highlight=False).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


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


@app.command()
def solve(
    gradient: Annotated[Path, typer.Argument(help="G, outputs × inputs: .npy, .npz, .pt, .pth or .safetensors.")],
    curvature: Annotated[
        list[str] | None,
        typer.Option("--curvature", "-c", help="H, such as 'r^2 + 0.1*exp(2)'; repeat to compare.", show_default="r^3"),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(help="Inputs n of the layer, if G has fewer columns: the missing ones are zero.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="auto, newton, closed-form, matrix, reference or spectral-reference.")
    ] = "auto",
    tol: Annotated[
        float | None,
        typer.Option(help="Bound on gap/⟨G, Q⟩.", show_default="1e-10 in float64, 1e-9 at kinks, 1e-5 in float32"),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Which array, where the file has several.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write Q: .npy, .pt or .safetensors; for one curvature.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the spectra: .png, .pdf or .svg.")] = None,
    rigorous: Annotated[
        bool, typer.Option("--rigorous", help="Prove bounds on value, gap and singular values in ball arithmetic.")
    ] = False,
    samples: Annotated[int, typer.Option(help="Sampled inputs of the reference methods.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the samples and of method matrix's start.")] = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON and nothing else; null: not a finite number.")
    ] = False,
) -> None:
    """Solve for the update Q of one gradient, with a certificate; several curvatures make a comparison.

    Exit code 1 if a solve misses its tolerance (nothing is written then), 2 for bad input. An unbounded program is
    an answer, exit code 0, unless --out asks for its Q.
    """
    import torch

    from icm.curvature import parse
    from icm.files import WRITABLE, read_matrix, write_array
    from icm.paths import check_output
    from icm.solvers import Status, compare, enclose
    from icm.solvers.solve import Method
    from icm.tables import as_json, comparison_table, console, enclosure_text, finite, json_text, progress_bar, reasons

    curvatures = [parse(text) for text in curvature or ["r^3"]]
    if out is not None and len(curvatures) > 1:
        raise errors.InputError(f"--out {out}: {len(curvatures)} curvatures give as many Q; ask for one at a time")
    if out is not None:
        check_output(out, WRITABLE)
    if plot is not None:
        check_output(plot, (".png", ".pdf", ".svg"))
    if method not in get_args(Method):
        raise errors.InputError(f"--method {method}: choose one of {', '.join(get_args(Method))}")
    for target in (out, plot):
        if target is not None and target.resolve() == gradient.resolve():
            raise errors.InputError(f"{target} is the gradient itself and would be overwritten; name another file")

    G = read_matrix(gradient, key)
    rows, columns = G.shape
    title = f"{gradient.name}: {rows} × {columns}"
    if dim is not None:
        if dim < columns:
            raise errors.InputError(f"--dim {dim}: G has {columns} columns, and the layer at least as many inputs")
        G = torch.nn.functional.pad(G, (0, dim - columns))
        title += f", a layer of {dim} inputs"
    how: dict[str, Any] = {"method": method, "tol": tol, "samples": samples, "seed": seed, "on_failure": "return"}
    comparison = compare(G, curvatures, **how)
    statuses = [solution.statuses[0] for solution in comparison.solutions]
    failed = [s for s in comparison.solutions if not s.statuses[0].answers]

    proofs = {}
    if rigorous:
        able = [i for i, s in enumerate(statuses) if s is not Status.UNBOUNDED and s is not Status.OVERFLOW]
        with progress_bar() as progress:
            for done, i in enumerate(able):
                progress(done, len(able), f"enclosing {curvatures[i]}")
                proofs[i] = enclose(comparison.solutions[i])

    written = []
    if not failed and not (out is not None and Status.UNBOUNDED in statuses):
        if plot is not None:
            from icm.plots import plot_spectra

            plot_spectra(list(comparison.solutions), plot, title)
            written.append(plot)
        if out is not None:
            write_array(out, comparison.solutions[0].Q[:, :columns])
            written.append(out)
    if json:
        report = as_json(comparison)
        for i, proof in proofs.items():
            report["solutions"][i]["enclosure"] = finite(proof.to_dict())
        typer.echo(json_text({"file": str(gradient), "columns": columns, **report}))
    else:
        screen = console()
        screen.print(comparison_table(comparison, title))
        for line in reasons(comparison):
            screen.print(line, markup=False, soft_wrap=True)
        for i, proof in proofs.items():
            screen.print(enclosure_text(str(curvatures[i]), proof), markup=False, soft_wrap=True)
        for target in written:
            screen.print(f"wrote {target}", markup=False, soft_wrap=True)
    for solution in failed:
        gap = float(solution.relative_gap)
        remedy = ", raise --tol" if solution.statuses[0] is Status.STALLED else ""
        _report(f"H = {solution.curvature}: {solution.statuses[0].value}; relative gap {gap:.1e}{remedy}")
    if failed:
        raise typer.Exit(1)
    if out is not None and Status.UNBOUNDED in statuses:
        _report(f"--out {out}: the program is unbounded, so there is no Q to write; take an H that grows faster")
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.json and pictures.")] = Path("icm-demo"),
    steps: Annotated[int, typer.Option(help="Training steps before the gradients are taken.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the network and its batches.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
) -> None:
    """Train a small transformer on Python's own sources and compare the updates of several curvatures."""
    from time import perf_counter

    from icm.demo import run
    from icm.tables import console, demo_table, json_text, progress_bar

    start = perf_counter()
    with progress_bar() as progress:
        report = run(out, steps=steps, seed=seed, progress=progress)
    if json:
        typer.echo(json_text(report))
        return
    screen = console()
    screen.print(demo_table(report))
    bits = report["bits_per_byte"]
    screen.print(f"validation: {bits['before']:.2f} bits per byte before, {bits['after']:.2f} after {steps} steps")
    pictures = f"report.json, {', '.join(report['pictures'])}"
    screen.print(f"wrote {out}: {pictures} ({perf_counter() - start:.0f} s)", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
