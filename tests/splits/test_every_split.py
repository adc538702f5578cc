"""One suite for every split: trained with a real Trainer, resumed, used without one, slim where it is structured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ke import KnowledgeEvolution, draw_mask, extract_slim, redraw
from lightning_ke.endings import Overfit, Plateau
from lightning_ke.masks import Mask
from lightning_ke.resets import list_resets
from lightning_ke.splits import (
    Call,
    Compose,
    Dormant,
    Fisher,
    FixedMask,
    Importance,
    Kels,
    Layers,
    Magnitude,
    Overlap,
    Snip,
    Split,
    SplitContext,
    get_split,
    list_splits,
)


class Module(LightningModule):
    """A small classifier with a norm; how it is run has to be learnt from the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def half_mask() -> Mask:
    generator = torch.Generator().manual_seed(5)
    return Mask.from_tensors(
        {
            name: torch.rand(p.shape, generator=generator) < 0.5
            if name.endswith("weight")
            else torch.ones_like(p).bool()
            for name, p in Module().named_parameters()
            if p.numel()
        }
    )


@dataclass(frozen=True)
class Case:
    """A row of the table: how a split is built, and which of its masks are one and the same in three generations."""

    build: Callable[[], Split]
    settled: int


CASES = {
    "kels": Case(lambda: get_split("kels"), 1),
    "wels": Case(lambda: get_split("wels"), 1),
    "layers": Case(lambda: get_split("layers"), 1),
    "last-layer": Case(lambda: get_split("last-layer"), 1),
    "everything": Case(lambda: get_split("everything"), 1),
    "random-each-generation": Case(lambda: get_split("random-each-generation"), 3),
    "magnitude": Case(lambda: get_split("magnitude"), 3),
    "snip": Case(lambda: get_split("snip"), 3),
    "fisher": Case(lambda: get_split("fisher"), 3),
    "bottom-up": Case(lambda: get_split("bottom-up"), 1),
    "dormant": Case(lambda: Dormant(0.6), 3),
    "overlap": Case(lambda: Overlap(0.5), 3),
    "importance": Case(lambda: get_split("importance"), 2),
    "mask": Case(lambda: FixedMask(half_mask()), 1),
    "compose: slim, and late layers": Case(lambda: Compose(Kels(0.5), Layers("net.3")), 1),
    "compose: strongest, and what is least sensitive": Case(lambda: Compose(Importance(0.5), Snip(0.5)), 2),
}
WEIGHTS = ("net.0.weight", "net.3.weight", "net.5.weight")
every_split = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


class Witness(Callback):
    """Notes the mask of each generation, and what a redraw changed."""

    def __init__(self) -> None:
        self.masks: dict[int, Mask] = {}
        self.changed: dict[int, dict[str, Tensor]] = {}
        self._before: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        evolution = trainer.callbacks[0]
        if self._before and batch_idx == 0 and evolution.generation not in self.masks:
            self.changed[evolution.generation] = {n: p != self._before[n] for n, p in pl_module.named_parameters()}
        if evolution.mask is not None:
            self.masks[evolution.generation] = evolution.mask

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.masks.setdefault(1, trainer.callbacks[0].mask)


def fit(
    tmp_path: Path,
    split: Split,
    checkpoint: Path | None = None,
    global_seed: int = 0,
    module: Module | None = None,
    **options: Any,
) -> tuple[Module, KnowledgeEvolution, Witness, list[Path]]:
    generator = torch.Generator().manual_seed(1)
    # Three equal batches: Lightning does not go on in the middle of a loader that cannot tell where it was.
    x = torch.randn(8, 6, generator=generator).repeat(3, 1)
    dataset = TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())
    seed_everything(global_seed)
    module, witness = module or Module(), Witness()
    length = {} if "end" in options else {"epochs_per_generation": 2}
    evolution = KnowledgeEvolution(split=split, seed=0, **{**length, **options})
    folder = tmp_path / ("whole" if checkpoint is None else f"after-{checkpoint.stem}")
    saver = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    trainer = Trainer(
        max_epochs=6,
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[evolution, witness, saver],
    )
    trainer.fit(module, DataLoader(dataset, 8), DataLoader(dataset, 8), ckpt_path=checkpoint)
    order = sorted(folder.glob("*.ckpt"), key=lambda path: int(path.stem.removeprefix("step=")))
    return module, evolution, witness, order


def test_every_name_of_the_registry_has_a_row() -> None:
    assert set(list_splits()) <= set(CASES)


@every_split
def test_three_generations_redraw_what_does_not_survive_and_nothing_else(tmp_path: Path, case: Case) -> None:
    split = case.build()
    _, evolution, witness, _ = fit(tmp_path, split)
    assert [record["generation"] for record in evolution.history] == [1, 2, 3]
    assert all(math.isfinite(value) for record in evolution.history for value in record["fit"].values())
    assert split.last_draw == {1: 1, 2: 2, 3: math.inf}[case.settled]
    masks = witness.masks
    assert [masks[1] == masks[2], masks[2] == masks[3]] == [case.settled < 2, case.settled < 3]
    for generation, changed in witness.changed.items():
        if isinstance(split, Compose):
            kept_by_fit = masks[generation]
            more = [name for name, where in changed.items() if bool((where & kept_by_fit[name]).any())]
            assert more, "the second split redraws weights that the first one keeps"
            assert all(bool(changed[name][~kept_by_fit[name]].all()) for name in changed if "net.1" not in name)
            continue
        for name, where in changed.items():
            if split.survivors_vary:  # more of what is not fit survives from generation to generation
                assert not bool((where & masks[generation][name]).any()), (generation, name)
            elif "net.1" not in name:  # the norm is never redrawn
                assert torch.equal(where, ~masks[generation][name]), (generation, name)
    assert sorted(witness.changed) == [2, 3]


@every_split
def test_a_run_resumed_from_the_middle_or_the_end_of_a_generation_is_the_whole_one(tmp_path: Path, case: Case) -> None:
    whole, evolution, witness, checkpoints = fit(tmp_path, case.build())
    # Of the first generation's six steps: within its last epoch, with a part of the scores gathered; and its last one.
    for step in (5, 6):
        again, resumed, masks, _ = fit(tmp_path, case.build(), checkpoints[step - 1], global_seed=99)
        assert resumed.mask == evolution.mask
        assert masks.masks[2] == witness.masks[2]
        different = [name for name, p in whole.state_dict().items() if not torch.equal(p, again.state_dict()[name])]
        assert different == []


@every_split
def test_a_mask_without_a_trainer(case: Case) -> None:
    net, split, x = Module(), case.build(), torch.randn(4, 6)
    net(x).square().mean().backward()
    mask = draw_mask(net, split, example_input=x)
    assert mask == draw_mask(net, case.build(), example_input=x)
    assert mask.fit_share < 1
    survivors = (
        split.survivors(mask, SplitContext(net, (), None, seed=0, generation=2)) if not split.needs_calls else mask
    )
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    report = redraw(net, survivors, generation=2)
    assert report.total > 0
    assert all(torch.equal(p[survivors[name]], before[name][survivors[name]]) for name, p in net.named_parameters())


@every_split
def test_a_structured_split_has_a_proven_slim_network_and_no_other_has(tmp_path: Path, case: Case) -> None:
    split = case.build()
    module, evolution, _, _ = fit(tmp_path, split)
    assert evolution.mask is not None
    assert split.structured == (evolution.mask.structure is not None)
    if split.structured:
        slim = evolution.slim_network(module)
        assert slim.net[0].weight.shape == (4, 6)
        assert sum(p.numel() for p in slim.parameters()) == sum(int(m.sum()) for m in evolution.mask.values())
    else:
        with pytest.raises(ValueError, match="structured split"):
            extract_slim(module, evolution.mask)


@every_split
def test_a_target_limits_what_is_redrawn(case: Case) -> None:
    if case.build().name in ("mask", "compose"):
        pytest.skip("their parts say what is redrawn")
    net, x = nn.ModuleDict({"early": nn.Linear(6, 8), "late": Module()}), torch.randn(4, 6)
    net["late"](x).square().mean().backward()
    net["early"](x).square().mean().backward()
    split = Layers("late.net.3") if case.build().name == "layers" else case.build()
    calls = (Call("late", (x,)),)
    mask = split.draw(SplitContext(net, calls, "late", seed=0))
    assert mask["early.weight"].all()
    assert mask.fit_share < 1


ENDINGS = {
    "length": {"epochs_per_generation": 2},
    "plateau": {"end": Plateau("val_loss", patience=1, least=1, most=2)},
    "overfit": {"end": Overfit("val_loss", "train_loss", patience=1, least=1, most=2)},
}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("reset", list_resets())
@every_split
def test_splits_resets_and_endings_go_together(tmp_path: Path, case: Case, reset: str, ending: str) -> None:
    _, evolution, witness, _ = fit(tmp_path, case.build(), reset=reset, optimizer="clear", **ENDINGS[ending])
    assert len(evolution.history) >= 3
    for generation, changed in witness.changed.items():
        moved = any(bool(where[~witness.masks[generation][name]].any()) for name, where in changed.items())
        # Late layers that are all zero have no gradient: they are still zero when they are set to zero again.
        assert moved == (reset != "none") or reset == "zero", generation


@pytest.mark.parametrize(
    ("name", "reset", "ending"),
    [
        ("magnitude", "rewind", "length"),
        ("snip", "rewind", "plateau"),
        ("fisher", "initial", "overfit"),
        ("importance", "rewind", "length"),
        ("compose: slim, and late layers", "rewind", "plateau"),
        ("compose: strongest, and what is least sensitive", "initial", "length"),
        ("everything", "shrink_perturb", "overfit"),
    ],
)
def test_some_splits_resets_and_endings_go_together(tmp_path: Path, name: str, reset: str, ending: str) -> None:
    test_splits_resets_and_endings_go_together(tmp_path, CASES[name], reset, ending)


def test_scores_are_gathered_over_several_batches_and_optimizers_a_step(tmp_path: Path) -> None:
    class TwoOptimizers(Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizers = self.optimizers()
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
            if batch_idx % 2:
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.net[:3], self.net[3:])]

    _, evolution, witness, _ = fit(tmp_path, get_split("snip"), module=TwoOptimizers(), epochs_per_generation=2)
    assert [record["generation"] for record in evolution.history] == [1, 2, 3]
    assert evolution.mask is not None
    assert sum(int(evolution.mask[name].sum()) for name in WEIGHTS) == math.ceil(0.8 * (48 + 64 + 24))
    assert sorted(witness.changed) == [2, 3]


def test_magnitude_keeps_the_largest_of_each_tensor() -> None:
    net = Module()
    mask = draw_mask(net, Magnitude(0.3))
    for name in WEIGHTS:
        size, member = dict(net.named_parameters())[name].detach().abs(), mask[name]
        assert int(member.sum()) == math.ceil(0.3 * member.numel())
        assert size[member].min() >= size[~member].max()


def test_a_ranking_across_tensors_keeps_the_share_of_all_weights() -> None:
    net = Module()
    net(torch.randn(4, 6)).square().mean().backward()
    mask = draw_mask(net, Snip(0.8))
    weights = {n: (p * p.grad).abs().detach() for n, p in net.named_parameters() if p.ndim == 2}
    kept = torch.cat([scores[mask[name]] for name, scores in weights.items()])
    redrawn = torch.cat([scores[~mask[name]] for name, scores in weights.items()])
    assert len(kept) == math.ceil(0.8 * (len(kept) + len(redrawn)))
    assert kept.min() >= redrawn.max()


def test_small_gradients_in_half_precision_are_told_apart() -> None:
    layer = nn.Linear(100, 1, bias=False).half()
    layer.weight.data.fill_(1e-3)
    layer.weight.grad = torch.linspace(1e-5, 1e-4, 100).half().view(1, 100)
    for split in (Fisher(0.5), Snip(0.5)):
        assert torch.equal(draw_mask(layer, split)["weight"].flatten(), torch.arange(100) >= 50)


def test_gradients_that_are_missing_are_asked_for() -> None:
    with pytest.raises(ValueError, match=r"hold gradients for split 'snip', .* Call `loss\.backward\(\)`"):
        draw_mask(Module(), "snip")
