"""Batches of every kind: the same containers with other tensors, and the batch that was given as it was."""

from __future__ import annotations

import copy
import types
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from icm.errors import InputError
from icm.measure.nest import with_tensors

Pair = namedtuple("Pair", "x n")


class Encoding(UserDict):
    """As transformers' BatchEncoding: keys are attributes too, and it holds more than its items."""

    def __init__(self, data: Any, encodings: Any = None):
        super().__init__(data)
        self._encodings = encodings

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None


class Named(dict):
    """A dict with an attribute."""

    name = ""


@dataclass
class Example:
    x: Tensor
    text: str = "text"
    more: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Tensor
    n: Any

    def __post_init__(self) -> None:
        if self.x.dtype == torch.float64:
            raise TypeError("made anew, from converted values")


class Sharing(MutableMapping):
    """A mapping whose plain copies write into it."""

    def __init__(self, data: dict[str, Any]):
        self.held = data

    def __getitem__(self, key: str) -> Any:
        return self.held[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.held[key] = value

    def __delitem__(self, key: str) -> None:
        del self.held[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)


def wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def named() -> Named:
    made = Named(x=torch.ones(2), n=torch.ones(2, dtype=torch.long))
    made.name = "mine"
    return made


x, n = torch.ones(2), torch.ones(2, dtype=torch.long)
BATCHES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "tensor": (x, lambda b: (b, n)),
    "dict": ({"x": x, "n": n}, lambda b: (b["x"], b["n"])),
    "OrderedDict": (OrderedDict(n=n, x=x), lambda b: (*reversed(b.values()),)),
    "defaultdict": (defaultdict(list, x=x, n=n), lambda b: (b["x"], b["n"]) if b["other"] == [] else None),
    "dict with an attribute": (named(), lambda b: (b["x"], b["n"]) if b.name == "mine" else None),
    "UserDict": (UserDict(x=x, n=n), lambda b: (b["x"], b["n"])),
    "encoding": (Encoding({"x": x, "n": n}, ["kept"]), lambda b: (b.x, b.n) if b._encodings == ["kept"] else None),
    "read-only": (types.MappingProxyType({"x": x, "n": n}), lambda b: (b["x"], b["n"])),
    "list": ([x, n], tuple),
    "tuple": ((x, n), tuple),
    "namedtuple": (Pair(x, n), lambda b: (b.x, b.n)),
    "packed sequence": (PackedSequence(x, n), lambda b: (b.data, b.batch_sizes)),
    "dataclass": (Example(x, more=[n, 3]), lambda b: (b.x, b.more[0]) if b.text == "text" else None),
    "frozen dataclass": (Frozen(x, n), lambda b: (b.x, b.n)),
    "nest": ({"a": [Example(x), {"n": n}], "b": None}, lambda b: (b["a"][0].x, b["a"][1]["n"])),
}


@pytest.mark.parametrize("name", BATCHES)
def test_containers_keep_their_types_and_what_else_they_hold(name: str) -> None:
    batch, tensors = BATCHES[name]
    found = with_tensors(batch, wide)
    assert type(found) is type(batch)
    one, other = tensors(found)
    assert (one.dtype, other is n or torch.equal(other, n)) == (torch.float64, True)
    assert tensors(batch)[0].dtype == torch.float32


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_of_which_nothing_changes_is_itself(name: str) -> None:
    batch, _ = BATCHES[name]
    assert with_tensors(batch, lambda x: x) is batch


@pytest.mark.parametrize("batch", ["text", 3, None, {1, 2}, torch.Size([2]), Example])
def test_what_holds_no_tensors_is_itself(batch: Any) -> None:
    assert with_tensors(batch, wide) is batch


def test_what_does_not_change_is_not_copied():
    kept = [n]
    assert with_tensors({"x": x, "kept": kept}, wide)["kept"] is kept


def test_a_mapping_whose_copies_share_its_items_is_refused_and_left_as_it_was():
    batch = Sharing({"x": x, "n": n})
    with pytest.raises(InputError, match=r"a Sharing that cannot be copied .*its copy shares its items\); give a dict"):
        with_tensors(batch, wide)
    assert batch["x"] is x

    class Better(Sharing):
        def __copy__(self) -> Better:
            return Better(dict(self.held))

    assert with_tensors(Better({"x": x}), wide)["x"].dtype == torch.float64


def test_a_mapping_that_cannot_be_made_is_refused():
    class Fixed(Mapping):
        def __getitem__(self, key: str) -> Any:
            return {"x": x}[key]

        def __iter__(self) -> Iterator[str]:
            return iter("x")

        def __len__(self) -> int:
            return 1

    with pytest.raises(InputError, match="a Fixed that cannot be copied with other tensors"):
        with_tensors([Fixed()], wide)
    assert copy.copy(Fixed())["x"] is x
