"""Networks inside a model: chains of linear layers with activations between them, whose neurons may trade places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from icm.errors import InputError
from icm.networks import nearest, unwrapped
from icm.symmetry.network import Network, activation_of, is_odd, known

_PASSED = (nn.Dropout, nn.Identity)  # treat every neuron alike, with either sign

Named = tuple[str, nn.Module]
Declared = Mapping[str, Sequence[str]]


class Chain(NamedTuple):
    """A network found in a model: its parameters by name, in the order of `network.parameters`, and why it is one."""

    network: Network
    params: tuple[tuple[str, Tensor], ...]
    reason: str


def chains(model: nn.Module, declared: Declared | None = None) -> list[Chain]:
    """Every maximal chain of two or more nn.Linear layers whose neurons in between nobody else is seen to use:

    - in an nn.Sequential, nested ones opened: linear layers that follow each other, with activations that
      `icm.symmetry.Network` knows, nn.Dropout or nn.Identity between them, or nothing; other modules end the chain;
    - in another module, its own nn.Linear children in the order of its attributes, if there is an activation module
      between each two. That its forward applies them in this order is inferred, and the reason says so;
    - declared: {"*.mlp": ("fc1", "relu", "fc2")} says of every module whose name matches which of its layers follow
      each other, with which activations, for forward methods that call functions. Nothing is inferred of such modules.

    Activations may differ along a chain: if all are odd the group is that of signed permutations, else permutations.
    Layers that hold a parameter which occurs elsewhere too, subclasses with a forward of their own and complex layers
    end a chain. What goes around a chain, such as a residual connection, does not touch its hidden neurons.

    Raises InputError for declarations that match nothing, name what is not there, or do not fit.
    """
    model, declared = unwrapped(model), declared or {}
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    modules = dict(model.named_modules())
    found: list[Chain] = []
    said: set[str] = set()
    for pattern, parts in declared.items():
        matched = [name for name in modules if fnmatchcase(name, pattern)]
        if not matched:
            like = ", ".join(map(repr, nearest(pattern, [name for name in modules if name], 3)))
            raise InputError(f"networks: {pattern!r} matches no module of the model; near it are {like or 'none'}")
        for name in matched:
            found.append(_declared(name, modules[name], parts, uses))
            uses.update(id(p) for _, p in found[-1].params)  # their layers are in no other chain
        said |= set(matched)
    opened = {id(child) for module in modules.values() if _in_order(module) for child in module.children()}
    for name, module in modules.items():
        if name in said:
            continue
        if _in_order(module):
            if id(module) not in opened:
                found += _runs(list(_opened(name, module)), uses, f"in sequence in {_quoted(name)}", bare=True)
        elif not isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):  # their order says nothing
            children = [(_path(name, key), child) for key, child in module.named_children()]
            found += _runs(children, uses, f"inferred from the order of attributes of {_quoted(name)}", bare=False)
    return found


def of_shapes(shapes: Sequence[Sequence[int]], activation: str) -> Network:
    """The network whose parameters, listed as torch lists those of a chain, have these shapes.

    Raises InputError where no chain has them.
    """
    widths: list[int] = []
    biases: list[bool] = []
    for shape in shapes:
        if len(shape) == 2 and (not widths or shape[1] == widths[-1]):
            widths += [*([] if widths else [shape[1]]), shape[0]]
            biases.append(False)
        elif len(shape) == 1 and biases and not biases[-1] and shape[0] == widths[-1]:
            biases[-1] = True
        else:
            raise InputError(
                f"parameters of shapes {', '.join(str(tuple(s)) for s in shapes)} are no chain of layers, which has W1 "
                "(d1, d0), then perhaps its bias (d1,), then W2 (d2, d1): take SymO.for_model(model, lr), which finds "
                "the chains of a model, or give each chain a group of its own"
            )
    return Network(tuple(widths), activation, tuple(biases))


def _runs(items: Sequence[Named], uses: Counter[int], reason: str, bare: bool) -> list[Chain]:
    """The chains in modules that are applied one after another; `bare`: with or without activations between."""
    found, run, kinds, since = [], [], [], []
    for name, module in (*items, ("", nn.Module())):
        if type(module) in _PASSED:
            continue
        activation = activation_of(module)
        if activation is not None:
            since.append(activation)
            continue
        plain = _plain(module, uses)
        fits = plain and run and run[-1][1].out_features == module.in_features and (bare or since)
        if not fits:
            found += _made(run, kinds, reason)
            run, kinds = [], []
        if plain:
            run.append((name, module))
            kinds += since if len(run) > 1 else []
        since = []
    return found


def _made(run: Sequence[Named], kinds: Sequence[str], reason: str) -> list[Chain]:
    if len(run) < 2:
        return []
    kind = next((kind for kind in kinds if not is_odd(kind)), None)
    kind = kind or next((kind for kind in kinds if kind != "identity"), "linear")
    layers = [module for _, module in run]
    params = tuple((_path(name, key), p) for name, module in run for key, p in module.named_parameters(recurse=False))
    widths = (int(layers[0].in_features), *(int(layer.out_features) for layer in layers))  # type: ignore[arg-type]
    network = Network(widths, kind, tuple(layer.bias is not None for layer in layers))
    return [Chain(network, params, f"{'–'.join(map(str, widths))} {kind}, {reason}")]


def _declared(name: str, module: nn.Module, parts: Sequence[str], uses: Counter[int]) -> Chain:
    here = dict(module.named_modules())
    run, kinds = [], []
    for part in parts:
        if part in here and part:
            layer = here[part]
            if not _plain(layer, uses):
                raise InputError(
                    f"networks: {_path(name, part)} is a {type(layer).__name__} that cannot be in a chain: it has to "
                    "be an nn.Linear whose parameters occur nowhere else"
                )
            if run and run[-1][1].out_features != layer.in_features:
                raise InputError(
                    f"networks: {_path(name, part)} takes {layer.in_features} inputs and the layer before it gives "
                    f"{run[-1][1].out_features}"
                )
            run.append((_path(name, part), layer))
        elif known(part):
            kinds.append(part)
        else:
            like = nearest(part, [one for one in here if one], 1)
            raise InputError(
                f"networks: {part!r} is neither an activation nor a layer of {_quoted(name)}"
                + (f", perhaps {like[0]!r}" if like else "")
            )
    made = _made(run, kinds, f"declared of {_quoted(name)}")
    if not made:
        raise InputError(f"networks: {tuple(parts)!r} of {_quoted(name)} has fewer than two layers")
    return made[0]


def _plain(module: nn.Module, uses: Counter[int]) -> bool:
    """Whether it is an nn.Linear and nothing more, with parameters of its own."""
    return (
        isinstance(module, nn.Linear)
        and type(module).forward is nn.Linear.forward
        and module._parameters.get("weight") is not None
        and all(uses[id(p)] == 1 and p.is_floating_point() for p in module.parameters())
    )


def _in_order(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _opened(name: str, module: nn.Module) -> Iterator[Named]:
    for key, child in module.named_children():
        if _in_order(child):
            yield from _opened(_path(name, key), child)
        else:
            yield _path(name, key), child


def _path(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _quoted(name: str) -> str:
    return repr(name) if name else "the model"
