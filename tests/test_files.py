"""Matrices survive the way through a file; whatever is no matrix is refused, by name and with a remedy."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from icm.errors import FileError
from icm.files import WRITABLE, read_matrix, write_array
from icm.paths import check_output


@pytest.fixture
def G(rng: torch.Generator) -> torch.Tensor:
    return torch.randn(3, 2, dtype=torch.float64, generator=rng)


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_round_trip(tmp_path: Path, G: torch.Tensor, suffix: str, dtype: torch.dtype):
    path = tmp_path / f"g{suffix}"
    write_array(path, G.T.to(dtype))  # a view, not contiguous
    back = read_matrix(path)
    assert back.dtype == dtype
    assert torch.equal(back, G.T.to(dtype))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", WRITABLE)
def test_bfloat16_loses_nothing(tmp_path: Path, G: torch.Tensor, suffix: str):
    write_array(tmp_path / f"g{suffix}", G.bfloat16())
    assert torch.equal(read_matrix(tmp_path / f"g{suffix}").double(), G.bfloat16().double())


def test_numpy_kinds(tmp_path: Path, G: torch.Tensor):
    for name, array in {
        "swapped": G.numpy().astype(">f8"),
        "fortran": np.asfortranarray(G.numpy()),
        "integers": np.arange(6, dtype=np.uint16).reshape(3, 2),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
        back = read_matrix(tmp_path / f"{name}.npy")
        assert back.dtype == torch.float64
        np.testing.assert_array_equal(back.numpy(), array)


def test_keys(tmp_path: Path, G: torch.Tensor):
    np.savez(tmp_path / "one.npz", weight=G.numpy())
    np.savez(tmp_path / "two.npz", weight=G.numpy(), bias=G[0].numpy())
    save_file({"a.weight": G, "b": 2 * G}, tmp_path / "two.safetensors")
    nested = {"model": {"layers": [G, 2 * G]}, "a.weight": torch.nn.Parameter(3 * G), "step": 7}
    torch.save(nested, tmp_path / "nested.pth")
    assert torch.equal(read_matrix(tmp_path / "one.npz"), G)
    assert torch.equal(read_matrix(tmp_path / "two.npz", "weight"), G)
    assert torch.equal(read_matrix(tmp_path / "two.safetensors", "b"), 2 * G)
    assert torch.equal(read_matrix(tmp_path / "nested.pth", "model.layers.1"), 2 * G)
    weight = read_matrix(tmp_path / "nested.pth", "a.weight")
    assert torch.equal(weight, 3 * G)
    assert not weight.requires_grad

    for name, key, words in [
        ("two.npz", None, "2 arrays; name one with a key: weight, bias"),
        ("two.npz", "wieght", "no array 'wieght'; it has weight"),
        ("two.npz", "bias", "1 dimensions"),
        ("two.safetensors", None, "a.weight, b"),
        ("nested.pth", "model", "group of arrays; name one of them: model.layers.0, model.layers.1"),
        ("nested.pth", "step", "'step' is no array but of type int"),
        ("nested.pth", "model.layers.2", "no array 'model.layers.2'"),
    ]:
        with pytest.raises(FileError, match=name) as caught:
            read_matrix(tmp_path / name, key)
        assert words in str(caught.value)
    write_array(tmp_path / "g.npy", G)
    with pytest.raises(FileError, match="without a name"):
        read_matrix(tmp_path / "g.npy", "weight")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".pth", ".safetensors"])
def test_damage(tmp_path: Path, G: torch.Tensor, suffix: str):
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".npz":
        np.savez(whole, G=G.numpy())
    elif suffix == ".pth":
        torch.save(G, whole)
    else:
        write_array(whole, G)
    content = whole.read_bytes()
    path = tmp_path / f"broken{suffix}"
    for broken in (b"", b"garbage" * 20, content[: len(content) // 2], content[:-3]):
        path.write_bytes(broken)
        with pytest.raises(FileError, match=r"broken.* is damaged or not what its name says"):
            read_matrix(path)


def test_a_header_that_asks_for_all_memory(tmp_path: Path, G: torch.Tensor):
    write_array(tmp_path / "g.npy", G)
    content = (tmp_path / "g.npy").read_bytes()
    forged = content.replace(b"(3, 2), }           ", b"(9999999999999, 2),}")
    assert forged != content
    assert len(forged) == len(content)
    (tmp_path / "g.npy").write_bytes(forged)
    with pytest.raises(FileError, match="damaged"):
        read_matrix(tmp_path / "g.npy")


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a file ran')",)


def test_nothing_in_a_file_runs(tmp_path: Path):
    trapped = np.array([[Trap()]], dtype=object)
    np.save(tmp_path / "trap.npy", trapped, allow_pickle=True)
    np.savez(tmp_path / "trap.npz", G=trapped)
    torch.save({"G": Trap()}, tmp_path / "trap.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.npy", "trap.npz", "trap.pt"):
        with pytest.raises(FileError, match="objects"):
            read_matrix(tmp_path / name)
    with pytest.raises(FileError, match=r"bare\.pt is damaged or not what its name says"):
        read_matrix(tmp_path / "bare.pt")


def test_what_is_no_matrix(tmp_path: Path, G: torch.Tensor):
    for content, words in [
        (G[0], "has 1 dimensions (2)"),
        (G[None], "save one matrix of the batch"),
        (G[0, 0], "scalar"),
        (G[:0], "no entries (0×2)"),
        (G + 1j, "complex"),
        (G > 0, "boolean"),
        (G.to_sparse(), "sparse_coo"),
        ({}, "holds no array"),
        (3, "holds no array"),
    ]:
        torch.save(content, tmp_path / "g.pt")
        with pytest.raises(FileError, match=r"g\.pt") as caught:
            read_matrix(tmp_path / "g.pt")
        assert words in str(caught.value)
    for array in (np.array(["a"]), np.zeros(3, dtype=[("a", float)]), np.zeros((2, 2), dtype="datetime64[s]")):
        np.save(tmp_path / "g.npy", array)
        with pytest.raises(FileError, match="not real numbers"):
            read_matrix(tmp_path / "g.npy")
    np.save(tmp_path / "g.npy", 3.0)
    with pytest.raises(FileError, match="scalar"):
        read_matrix(tmp_path / "g.npy")


def test_places(tmp_path: Path, G: torch.Tensor):
    write_array(tmp_path / "gradient.npy", G)
    (tmp_path / "folder.npy").mkdir()
    for name, words in [
        ("gradeint.npy", "no such file; did you mean gradient.npy?"),
        ("nowhere/g.npy", "no such file; check the path"),
        ("folder.npy", "is a folder"),
        ("g.csv", "unknown kind of file '.csv'"),
        ("g", "unknown kind of file ''"),
    ]:
        with pytest.raises(FileError) as caught:
            read_matrix(tmp_path / name)
        assert words in str(caught.value)


def test_output_is_checked_and_whole(tmp_path: Path, G: torch.Tensor):
    (tmp_path / "folder.npy").mkdir()
    for name, words in [("q.npz", "'.npz'"), ("nowhere/q.npy", "create it first"), ("folder.npy", "is a folder")]:
        with pytest.raises(FileError) as caught:
            write_array(tmp_path / name, G)
        assert words in str(caught.value)
    path = tmp_path / "q.npy"
    write_array(path, G)
    write_array(path, 2 * G)  # replaced, not appended
    assert torch.equal(read_matrix(path), 2 * G)
    link = tmp_path / "link.npy"
    link.symlink_to(path)
    write_array(link, G)
    assert link.is_symlink()
    assert torch.equal(read_matrix(path), G)
    assert check_output(str(path), WRITABLE) == path
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]
