"""`icm solve`: the update of one gradient, with a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from icm import errors
from icm.commands.failure import complain


def solve(
    gradient: Annotated[Path, typer.Argument(help="G, outputs × inputs: .npy, .npz, .pt, .pth or .safetensors.")],
    curvature: Annotated[
        list[str] | None,
        typer.Option("--curvature", "-c", help="H, such as 'r^2 + 0.1*exp(2)'; repeat to compare.", show_default="r^3"),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(help="Inputs n of the layer, if G has fewer columns: the missing ones are zero.")
    ] = None,
    input_moment: Annotated[
        Path | None,
        typer.Option(
            help="Second moment C of the inputs, n × n, any scale: Q for inputs of that shape, not isotropic."
        ),
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
    from icm.paths import check_output, json_text
    from icm.solvers import Status, compare, enclose
    from icm.solvers.solve import Method
    from icm.tables import as_json, comparison_table, console, enclosure_text, finite, progress_bar, reasons

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
        if target is not None and input_moment is not None and target.resolve() == input_moment.resolve():
            raise errors.InputError(f"{target} is the input moment and would be overwritten; name another file")

    G = read_matrix(gradient, key)
    rows, columns = G.shape
    title = f"{gradient.name}: {rows} × {columns}"
    if dim is not None:
        if dim < columns:
            raise errors.InputError(f"--dim {dim}: G has {columns} columns, and the layer at least as many inputs")
        G = torch.nn.functional.pad(G, (0, dim - columns))
        title += f", a layer of {dim} inputs"
    C = None if input_moment is None else read_matrix(input_moment, None)
    kept = columns if C is None else G.shape[1]  # C brings inputs of zero gradient into Q
    how: dict[str, Any] = {"method": method, "tol": tol, "samples": samples, "seed": seed, "on_failure": "return"}
    comparison = compare(G, curvatures, input_moment=C, **how)
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
            write_array(out, comparison.solutions[0].Q[:, :kept])
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
        complain(f"H = {solution.curvature}: {solution.statuses[0].value}; relative gap {gap:.1e}{remedy}")
    if failed:
        raise typer.Exit(1)
    if out is not None and Status.UNBOUNDED in statuses:
        complain(f"--out {out}: the program is unbounded, so there is no Q to write; take an H that grows faster")
        raise typer.Exit(1)
