"""Models on disk: what examples/train_lm.py writes, Hugging Face's folders, and everything else, which is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from icm.checkpoints import draw, read_checkpoint
from icm.demo import load_example
from icm.errors import FileError, InputError, MissingPackageError


def checkpoint(folder: Path, step: int = 7) -> Path:
    """As examples/train_lm.py writes it, of a network trained for 30 steps whatever it says."""
    example = load_example()
    config = {"layers": 1, "width": 16, "heads": 2, "context": 24}
    model = example.SmallLM(example.Config(**config), seed=3)
    example.train(model, example.corpus(20_000), 30, batch=8)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"configuration": config, "step": step, "model": model.state_dict()}, folder / "checkpoint.pt")
    return folder


def test_an_examples_checkpoint_is_read_from_its_file_or_folder(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "run")
    for path in (folder, folder / "checkpoint.pt"):
        found = read_checkpoint(path)
        assert (found.name, found.step, found.context) == ("run", 7, 25)
        assert not found.model.training


def test_its_loss_is_the_examples_own(tmp_path: Path) -> None:
    found, example = read_checkpoint(checkpoint(tmp_path)), load_example()
    tokens = draw(found, [], 4, 25, 2)[0]
    assert torch.equal(found.loss(found.model, tokens), example.loss(found.model, (tokens[:, :-1], tokens[:, 1:])))


def test_text_is_cut_into_windows_one_after_another(tmp_path: Path) -> None:
    found = read_checkpoint(checkpoint(tmp_path))
    (tmp_path / "a.txt").write_bytes(bytes(range(60)))
    (tmp_path / "b.txt").write_bytes(bytes(range(60, 100)))
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    first, second = draw(found, files, 5, 10, 3)
    assert torch.equal(torch.cat([first, second]), torch.arange(50).view(5, 10))
    (rest,) = draw(found, files, 5, 10, 8, first=5)
    assert torch.equal(rest, torch.arange(50, 100).view(5, 10))


@pytest.mark.parametrize(
    ("examples", "length", "batch", "said"),
    [
        (5, 26, 1, "--length 26: .* reads 25 tokens at most"),
        (11, 10, 1, "the text has 100 tokens, and 11 examples of 10 take 110"),
        (0, 10, 1, "--examples 0"),
        (1, 1, 1, "--length 1"),
        (1, 10, 0, "--batch 0"),
    ],
)
def test_windows_that_cannot_be_had_are_refused(
    tmp_path: Path, examples: int, length: int, batch: int, said: str
) -> None:
    found = read_checkpoint(checkpoint(tmp_path))
    (tmp_path / "a.txt").write_bytes(bytes(100))
    with pytest.raises(InputError, match=said):
        draw(found, [tmp_path / "a.txt"], examples, length, batch)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"config\.json"):
        read_checkpoint(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(FileError, match="no checkpoint of examples"):
        read_checkpoint(tmp_path)
    found = read_checkpoint(checkpoint(tmp_path / "run"))
    with pytest.raises(FileError, match="cannot be read"):
        draw(found, [tmp_path / "missing.txt"], 1, 10, 1)
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(InputError, match="the text has 0 tokens, and 1 examples of 10 take 10"):
        draw(found, [tmp_path / "empty.txt"], 1, 10, 1)


def test_a_hugging_face_folder_without_transformers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 256}))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackageError, match="pip install transformers"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("shown", [True, False])
def test_transformers_bars_are_off_meanwhile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shown: bool) -> None:
    """Told by a stand-in, as transformers has it: whether bars are drawn, while a model is read and after."""
    drawn, heard = [shown], []

    def from_pretrained(*ignored: object, **options: object) -> None:
        heard.append(drawn[0])
        raise OSError("")

    package, utils, logging = (ModuleType(x) for x in ("transformers", "transformers.utils", "logging"))
    monkeypatch.setattr(
        package, "AutoModelForCausalLM", SimpleNamespace(from_pretrained=from_pretrained), raising=False
    )
    for name, value in (("is", lambda: drawn[0]), ("disable", lambda: drawn.insert(0, False))):
        verb = f"{name}_progress_bar" + ("_enabled" if name == "is" else "")
        monkeypatch.setattr(logging, verb, value, raising=False)
    monkeypatch.setattr(logging, "enable_progress_bar", lambda: drawn.insert(0, True), raising=False)
    for name, module in (("", package), (".utils", utils), (".utils.logging", logging)):
        monkeypatch.setitem(sys.modules, f"transformers{name}", module)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileError, match="holds no causal language model \\(OSError: OSError\\)"):
        read_checkpoint(tmp_path)
    assert heard == [False]
    assert drawn[0] == shown


@pytest.mark.recipes
def test_gpt2_is_read_and_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """transformers' own loss agrees, and a fused layer is measured in its parts."""
    transformers = pytest.importorskip("transformers")
    from icm.measure import curvature

    shape = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 256}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(tmp_path / "gpt2-30")
    found = read_checkpoint(tmp_path / "gpt2-30")
    assert (found.step, found.context) == (30, 32)
    (tmp_path / "gpt2-30").rename(tmp_path / "gpt2")
    assert read_checkpoint(tmp_path / "gpt2").step is None
    assert "Loading" not in capfd.readouterr().err
    assert transformers.utils.logging.is_progress_bar_enabled()
    tokens = draw(found, [], 4, 32, 4)[0]
    terms = found.loss(found.model, tokens)
    wanted = model.eval()(tokens, labels=tokens).loss
    assert torch.allclose(terms.mean(), wanted, rtol=1e-5)
    measured = curvature(
        found.model, found.loss, [tokens], ["*.c_attn", "*.c_proj"], [0.1, 1.0], directions=2, tokens=2,
        parts={"*.c_attn": ("query", "key", "value")}, progress=False,
    )  # fmt: skip
    first = "transformer.h.0"
    parts = [f"{first}.attn.c_attn.{part}" for part in ("query", "key", "value")]
    assert list(measured) == [*parts, f"{first}.attn.c_proj", f"{first}.mlp.c_proj"]
    assert measured[parts[0]].m == 16
    assert measured[f"{first}.mlp.c_proj"].n == 64
