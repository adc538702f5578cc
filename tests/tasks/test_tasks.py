"""Every task, trained in generations by the plain callback: dense and fit scores, a slim network, its own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_ke import KnowledgeEvolution
from lightning_ke.app.vision_transformer import small_vit
from lightning_ke.losses import BornAgain, Distillation, InPlaceDistillation
from lightning_ke.tasks import (
    Classification,
    Heading,
    MetricLearning,
    MultiLabel,
    NextCharacter,
    NodeClassification,
    Regression,
    Task,
)
from lightning_ke.tasks.graphs import graph_network
from lightning_ke.tasks.regression import angle_between
from lightning_ke.tasks.retrieval import normalized_mutual_information, retrieval_scores
from lightning_ke.tasks.text import CharacterGRU, CharacterTransformer
from tests.distributed import programs
from tests.distributed.world import run_world


class OneGraph(Dataset[Any]):
    """Two communities that hardly cite each other, a few of whose members are known."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        generator = torch.Generator().manual_seed(3)
        labels = torch.arange(60) % 2
        edges = torch.randint(0, 30, (2, 240), generator=generator) * 2
        edges[:, 120:] += 1
        features = torch.randn(60, 6, generator=generator)
        return (features, edges), labels.masked_fill(torch.arange(60) > 40, -100)


def mlp(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs))


def graphs(kind: Any) -> tuple[Task, DataLoader[Any]]:
    network = graph_network(kind, num_classes=2, in_channels=6, hidden=16, dropout=0.0)
    task = NodeClassification(network, 2, optimizer=lambda p: Adam(p, lr=0.02))
    return task, DataLoader(OneGraph(), batch_size=None)


def rows(wanted: Callable[[Tensor], Tensor]) -> DataLoader[Any]:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(2))
    return DataLoader(TensorDataset(x, wanted(x)), 16)


def embedding(loss: Any) -> tuple[Task, DataLoader[Any]]:
    task = MetricLearning(mlp(8), 4, 8, loss, nmi="always", optimizer=lambda p: Adam(p, lr=0.01))
    return task, rows(lambda x: (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0))


def text(network: Any) -> tuple[Task, DataLoader[Any]]:
    characters = (torch.arange(17)[None] + torch.arange(32)[:, None]) % 9
    loader = DataLoader(TensorDataset(characters[:, :-1], characters[:, 1:]), 8)
    return NextCharacter(network, 9, optimizer=lambda p: Adam(p, lr=0.01)), loader


def stripes() -> tuple[Task, DataLoader[Any]]:
    """Images of 16 px whose stripes go across or down, for a vision transformer."""
    labels = torch.arange(64) % 2
    noise = 0.3 * torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    rows = torch.sin(torch.arange(16.0) * math.pi / 2)[:, None].expand(16, 16)
    images = torch.where((labels == 0)[:, None, None, None], rows, rows.T) + noise
    network = small_vit(2, 16, in_channels=1, patch=4, width=16, depth=1, dropout=0.0)
    task = Classification(network, 2, optimizer=lambda p: Adam(p, lr=0.01))
    return task, DataLoader(TensorDataset(images, labels), 16)


def sgd(parameters: Any) -> Any:
    return SGD(parameters, lr=0.05, momentum=0.9)


CASES: dict[str, tuple[Callable[[], tuple[Task, DataLoader[Any]]], str, float]] = {
    "GCN": (lambda: graphs("GCN"), "val_acc", 0.9),
    "GraphSAGE": (lambda: graphs("GraphSAGE"), "val_acc", 0.9),
    "GAT": (lambda: graphs("GAT"), "val_acc", 0.9),
    "triplet": (lambda: embedding("triplet"), "val_recall@1", 0.6),
    "proxy-anchor": (lambda: embedding("proxy-anchor"), "val_recall@1", 0.6),
    "margin": (lambda: embedding("margin"), "val_recall@1", 0.6),
    "values": (lambda: (Regression(mlp(1), optimizer=sgd), rows(lambda x: x[:, :1] * 2)), "val_r2", 0.8),
    "heading": (
        lambda: (Heading(mlp(2), optimizer=sgd), rows(lambda x: torch.atan2(x[:, 0], x[:, 1]))),
        "val_cos",
        0.7,
    ),
    "labels": (lambda: (MultiLabel(mlp(3), 3, optimizer=sgd), rows(lambda x: (x[:, :3] > 0).long())), "val_auc", 0.9),
    "GRU": (lambda: text(CharacterGRU(9, 16)), "val_acc", 0.7),
    "vision transformer": (stripes, "val_acc", 0.9),
    "transformer": (lambda: text(CharacterTransformer(9, 16, layers=1, context=16)), "val_acc", 0.7),
}
every_task = pytest.mark.parametrize(("build", "name", "least"), CASES.values(), ids=CASES.keys())


def fit(folder: Path, task: Task, loader: DataLoader[Any], **options: Any) -> tuple[Trainer, KnowledgeEvolution]:
    evolution = KnowledgeEvolution(**{"split": "kels", "rate": 0.5, "seed": 0, "epochs_per_generation": 15, **options})
    trainer = Trainer(
        max_epochs=30,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=15,
        callbacks=[evolution, ModelCheckpoint(folder, save_last=True)],
    )
    trainer.fit(task, loader, loader)
    return trainer, evolution


@every_task
def test_it_learns_in_generations_and_has_a_slim_network(tmp_path: Path, build: Any, name: str, least: float) -> None:
    seed_everything(0)
    task, loader = build()
    trainer, evolution = fit(tmp_path, task, loader)
    last = evolution.history[-1]
    assert last["dense"][name] >= least
    assert set(last["dense"]) - {"train_loss"} == set(last["fit"]), (
        "every score of the dense network, of the fit one too"
    )
    assert all(math.isfinite(value) for value in last["fit"].values())
    slim = evolution.slim_network(task)
    assert sum(p.numel() for p in slim.backbone.parameters()) < 0.75 * sum(
        p.numel() for p in task.backbone.parameters()
    )
    (scores,) = trainer.validate(slim, loader, verbose=False)
    assert scores[name] == pytest.approx(last["fit"][name], abs=1e-5)
    (tested,) = trainer.test(task, loader, verbose=False)
    assert tested[name.replace("val", "test")] == pytest.approx(last["dense"][name], abs=1e-5)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert isinstance(content["hyper_parameters"]["interval"], str)


def test_a_born_again_teacher_teaches_graphs(tmp_path: Path) -> None:
    _, loader = graphs("GCN")
    network = graph_network("GCN", num_classes=2, in_channels=6, hidden=16, dropout=0.0)
    loss = BornAgain(criterion=nn.CrossEntropyLoss(ignore_index=-100))
    task = NodeClassification(network, 2, loss=loss, optimizer=lambda p: Adam(p, lr=0.02))
    _, evolution = fit(tmp_path, task, loader, split="everything", rate=None)
    assert evolution.history[-1]["dense"]["val_acc"] >= 0.9
    assert "teacher" in loss.remembered()


def test_recall_and_map_are_counted_as_defined() -> None:
    angles = torch.tensor([0.0, 0.1, 0.25, 2.0, 2.1, 1.9])
    points, labels = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([0, 1, 0, 0, 1, 2])
    # Nearest first: 0: 1 2 5 ..; 1: 0 2 ..; 2: 1 0 ..; 3: 4 5 2 1 0 (4 and 5 are equally near); 4: 3 5 2 1 0
    scores = retrieval_scores(points, labels, ks=(1, 2, 4))
    assert scores["recall@1"] == 0
    assert scores["recall@2"] == pytest.approx(2 / 5)
    assert scores["recall@4"] == pytest.approx(4 / 5)
    # Two others of class 0, one of class 1: precision at the second place counts for examples 0 and 2.
    assert scores["map@r"] == pytest.approx((0.25 + 0 + 0.25 + 0 + 0) / 5)


def test_map_agrees_with_pytorch_metric_learning() -> None:
    calculators = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(0, 7, (90,), generator=generator)
    points = torch.randn(90, 5, generator=generator) + labels[:, None] * 0.2
    calculator = calculators.AccuracyCalculator(
        include=("mean_average_precision_at_r", "precision_at_1"),
        k="max_bin_count",
        knn_func=inference.CustomKNN(distances.CosineSimilarity()),
        kmeans_func=lambda *_: None,
        device=torch.device("cpu"),
    )
    theirs = calculator.get_accuracy(points, labels)
    ours = retrieval_scores(points, labels)
    assert ours["map@r"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-5)
    assert ours["recall@1"] == pytest.approx(theirs["precision_at_1"], abs=1e-5)


def test_clusters_that_are_the_classes_say_all_of_them() -> None:
    labels = torch.arange(40) % 2
    apart = torch.stack([labels, 1 - labels], 1) + 0.01 * torch.randn(40, 2)
    assert normalized_mutual_information(apart, labels) == pytest.approx(1)
    assert normalized_mutual_information(torch.randn(40, 2), labels) < 0.3


def test_a_class_of_one_example_is_no_query() -> None:
    scores = retrieval_scores(torch.eye(3), torch.tensor([0, 0, 1]), ks=(1, 8))
    assert scores["recall@8"] == 1
    with pytest.raises(ValueError, match="at least one class with two examples"):
        retrieval_scores(torch.eye(2), torch.tensor([0, 1]))


def test_angles_are_compared_on_the_circle() -> None:
    degrees = torch.tensor([[359.0, 1.0], [10.0, 200.0], [-170.0, 170.0], [720.0, 0.0]]).deg2rad()
    torch.testing.assert_close(
        angle_between(degrees[:, 0], degrees[:, 1]).rad2deg().round(), torch.tensor([2.0, 170, 20, 0])
    )


def test_values_are_learnt_standardised_and_scored_in_their_own_unit() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 1)

    task = Regression(Constant(), mean=100.0, std=10.0)
    loader = DataLoader(TensorDataset(torch.zeros(4, 1), torch.tensor([[110.0], [114.0], [106.0], [110.0]])), 2)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    (scores,) = trainer.validate(task, loader, verbose=False)
    assert scores == {"val_loss": 8.0, "val_r2": 0.0, "val_mae": 2.0}
    with pytest.raises(ValueError, match="`std` to be greater than 0"):
        Regression(Constant(), std=0.0)


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5])
def test_values_far_from_zero_are_scored_as_others_are(mean: float) -> None:
    values = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)) + mean
    foretold = values + torch.randn(100, 1, generator=torch.Generator().manual_seed(1)) / 2
    task = Regression(nn.Identity(), mean=mean)
    loader = DataLoader(TensorDataset(foretold - mean, values), 10)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    (scores,) = trainer.validate(task, loader, verbose=False)
    exact, wanted = foretold.double(), values.double()
    left = ((exact - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum()
    assert scores["val_r2"] == pytest.approx(1 - left.item(), abs=1e-4)


def test_several_values_are_scored_each_on_its_own() -> None:
    """Whoever foretells the mean of each value, and no more, has an R2 of 0."""

    class Means(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([1.0, 1000.0]).expand(len(x), 2)

    values = torch.tensor([[0.0, 999.0], [2.0, 1001.0], [0.0, 1001.0], [2.0, 999.0]])
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    loader = DataLoader(TensorDataset(torch.zeros(4, 1), values), 2)
    (scores,) = trainer.validate(Regression(Means(), 2), loader, verbose=False)
    assert scores == {"val_loss": 1.0, "val_r2": 0.0, "val_mae": 1.0}


@pytest.mark.slow
def test_losses_are_those_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"):  # the launcher leaves them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    loader = DataLoader(TensorDataset(torch.zeros(8, 6), torch.tensor([[0.0], [2.0]] * 4)), 2)
    task = Regression(nn.Linear(6, 1), optimizer=partial(SGD, lr=0.0))
    nn.init.zeros_(task.backbone.bias)  # type: ignore[arg-type]  # of the linear layer
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=1, **options)
    trainer.fit(task, DataLoader(loader.dataset, 8), loader)
    # The first rank has seen those that are 0, the second those that are 2.
    assert trainer.callback_metrics["val_loss"] == 2.0
    assert trainer.callback_metrics["train_loss"] == 2.0


@pytest.mark.parametrize(("size", "count"), [(2, 5), (3, 2)])
def test_embeddings_that_ranks_share_do_not_find_themselves(tmp_path: Path, size: int, count: int) -> None:
    """A sampler repeats the first ones, whose nearest others are of another class, so that all ranks have as many."""
    embeddings = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0], [0.1, 0.99], [0.05, 1.0]])[:count]
    labels = torch.tensor([0, 1, 0, 1, 1] if count > 2 else [0, 0])
    expected = {f"val_{name}": value for name, value in retrieval_scores(embeddings, labels).items()}
    for scores in run_world(size, programs.score_embeddings, tmp_path, embeddings, labels):
        assert scores == pytest.approx(expected)


@pytest.mark.parametrize("task", [lambda loss: Regression(mlp(1), loss=loss), lambda loss: Heading(mlp(2), loss=loss)])
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(label_smoothing=0.1), BornAgain(0.5)])
def test_values_are_not_learnt_by_a_loss_of_classes(task: Any, loss: nn.Module) -> None:
    """It would run: of one output the softmax is 1 and the loss 0, and nothing would be learnt."""
    with pytest.raises(ValueError, match=r"CrossEntropyLoss compares one class .*loss=mse, loss=l1"):
        task(loss)


@pytest.mark.parametrize(
    "build",
    [
        lambda criterion: BornAgain(0.5, criterion=criterion),
        lambda criterion: Distillation(mlp(1), criterion=criterion),
        lambda criterion: InPlaceDistillation(criterion=criterion),
    ],
)
def test_values_are_not_learnt_from_what_a_teacher_says_of_classes(build: Any) -> None:
    """Whatever two networks foretell, the softmax of a single value is 1, and their divergence 0."""
    with pytest.raises(
        ValueError, match=r"to compare values, but \w+ compares probabilities of classes\. Give nn\.MSE"
    ):
        Regression(mlp(1), loss=build(nn.MSELoss()))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), BornAgain(0.5)])
def test_embeddings_are_not_learnt_by_a_loss_of_classes(loss: nn.Module) -> None:
    """It would run, and take the numbers of an embedding for the scores of classes."""
    with pytest.raises(ValueError, match=r"to compare embeddings, but .* Give \"proxy-anchor\", \"triplet\" or"):
        MetricLearning(mlp(8), 4, 8, loss)


def test_the_better_direction_of_every_score_is_known() -> None:
    tasks = [Regression(mlp(1)), Heading(mlp(2)), MultiLabel(mlp(3), 3), NextCharacter(CharacterGRU(9, 8), 9)]
    tasks += [Classification(mlp(6), 6, auc=True, calibration=True), MetricLearning(mlp(8), 4, 8, "triplet")]
    for task in tasks:
        less = {"val_loss", "val_mae", "val_perplexity"}
        assert {name: task.directions[name] == "min" for name in task.monitors} == {
            name: name in less for name in task.monitors
        }


@pytest.mark.parametrize(
    "loss", [nn.MSELoss(), nn.L1Loss(), nn.BCEWithLogitsLoss(), Distillation(mlp(3), criterion=nn.MSELoss())]
)
@pytest.mark.parametrize("task", [Classification, NodeClassification, NextCharacter])
def test_classes_are_not_learnt_as_values(task: Any, loss: nn.Module) -> None:
    with pytest.raises(
        ValueError, match=r"compare one \w+ .*, but \w+ compares a value for each output\..*cross_entropy"
    ):
        task(mlp(3), 3, loss=loss)


def test_several_labels_are_not_learnt_as_one() -> None:
    with pytest.raises(ValueError, match="loss=binary_cross_entropy"):
        MultiLabel(mlp(3), 3, nn.CrossEntropyLoss())


def test_perplexity_is_that_of_all_characters() -> None:
    network = CharacterGRU(9, 8)
    task = NextCharacter(network, 9)
    x, y = torch.randint(0, 9, (5, 12)), torch.randint(0, 9, (5, 12))
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    (scores,) = trainer.validate(task, DataLoader(TensorDataset(x, y), 3), verbose=False)
    with torch.no_grad():
        wanted = nn.functional.cross_entropy(network(x), y).exp()
    assert scores["val_perplexity"] == pytest.approx(float(wanted), rel=1e-5)


def test_more_characters_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected at most 4 characters \(argument `context`\), but got 5"):
        CharacterTransformer(9, 8, heads=2, context=4)(torch.zeros(1, 5, dtype=torch.long))


@pytest.mark.parametrize("network", [CharacterGRU(9, 8), CharacterTransformer(9, 8, heads=2, context=12)])
def test_no_character_sees_those_behind_it(network: nn.Module) -> None:
    network.eval()
    one = torch.randint(0, 9, (1, 12))
    other = one.clone()
    other[0, 8:] = (other[0, 8:] + 1) % 9
    torch.testing.assert_close(network(one)[..., :8], network(other)[..., :8])
    assert not torch.equal(network(one)[..., 8:], network(other)[..., 8:])
