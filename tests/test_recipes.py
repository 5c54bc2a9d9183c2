"""The recipes for other people's training loops run, and print what the page says; the page's other blocks are run by
test_docs.py."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from icm.optim import ICM
from tests.test_docs import Block, blocks, differences, execute

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"


def recipe(package: str) -> tuple[Block, str]:
    """The block of the page that imports a package, and what it is said to print."""
    neighbours = pairwise(blocks(PAGE.read_text(encoding="utf-8")))
    imports = re.compile(rf"^(import|from) {package}\b", re.MULTILINE)
    chosen = [
        (block, after.text) for block, after in neighbours if block.language == "py" and imports.search(block.text)
    ]
    assert len(chosen) == 1
    return chosen[0]


def run(package: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a block, compare the last lines that it prints (what is before them is the package's own), and give the
    names that it leaves."""
    monkeypatch.chdir(folder)
    block, output = recipe(package)
    names: dict[str, Any] = {"__name__": "page"}
    last = execute(block, names).splitlines()[-output.count("\n") :]
    assert differences("\n".join(last), output) == []
    return names


@pytest.fixture(autouse=True)
def offline_and_alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Nothing is fetched, and the global seeds that these packages set are put back."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def test_every_block_has_its_test() -> None:
    found = [block.text for block in blocks(PAGE.read_text(encoding="utf-8")) if block.language == "py"]
    assert sorted(found) == sorted(recipe(package)[0].text for package in ("transformers", "lightning"))


@pytest.mark.recipes
def test_the_trainer_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    names = run("transformers", tmp_path, monkeypatch)
    weights = {name: weight.detach().clone() for name, weight in names["model"].named_parameters()}
    # From the checkpoint halfway, in a model and an optimizer of other numbers, to the same end.
    torch.manual_seed(1)
    model = names["GPT2LMHeadModel"](names["config"])
    optimizer = ICM.for_model(model, lr=2e-2, fused={"*.c_attn": 3})
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=24)
    trainer = names["Trainer"](
        model, names["arguments"], train_dataset=names["data"], optimizers=(optimizer, scheduler)
    )
    trainer.train(resume_from_checkpoint=str(tmp_path / "trained" / "checkpoint-12"))
    assert trainer.state.global_step == 24
    assert [name for name, weight in model.named_parameters() if not torch.equal(weight, weights[name])] == []


@pytest.mark.recipes
def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning")
    names = run("lightning", tmp_path, monkeypatch)
    ordered = names["DataLoader"](names["data"], batch_size=32)

    def trained(epochs: int, checkpoint: str | None) -> tuple[Any, Any]:
        torch.manual_seed(2)
        module = names["Classifier"]()
        trainer = names["lightning"].Trainer(
            max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=str(tmp_path / f"{epochs}-{checkpoint is not None}"),
        )  # fmt: skip
        trainer.fit(module, ordered, ckpt_path=checkpoint)
        return module, trainer

    half, trainer = trained(1, None)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    whole, _ = trained(2, None)
    resumed, _ = trained(2, str(tmp_path / "half.ckpt"))
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(half.net[0].weight, whole.net[0].weight)


@pytest.mark.recipes
def test_lightning_with_a_kink(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Linear(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 8), torch.nn.Linear(8, 2))

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            return self.net(batch).square().mean()

        def configure_optimizers(self) -> ICM:
            return ICM.for_model(self, lr=1e-2, curvature="0.1*r^2 + 5*kink(1)")

    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=str(tmp_path),
    )  # fmt: skip
    trainer.fit(Linear(), torch.randn(4, 8, 8))
    assert trainer.global_step == 4
