"""Networks spread over ranks (FSDP2, tensor parallelism, both) are the network of one process."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_ke import KnowledgeEvolution
from lightning_ke.phases import Ascent
from tests.callback.modules import Classifier, make_trainer, same, train_loader, val_loader
from tests.distributed import programs
from tests.distributed.world import run_world

LAYERS = ("model.1.weight", "model.4.weight", "model.7.weight")
WITHOUT_SCORES = {"wels", "random-each-generation", "layers", "last-layer", "everything"}


def options(split: str, **others: Any) -> dict[str, Any]:
    scores = {"score_fit": False} if split in WITHOUT_SCORES else {}
    return {"split": split, **scores, **others}


@cache
def single(split: str) -> dict[str, Any]:
    """What one process does, in a process of its own like the others."""
    [result] = run_world(1, programs.train, Path("single"), "single", 1, options(split))
    return result


def assert_one_network(ranks: list[dict[str, Any]], split: str) -> None:
    """All ranks did what one process does: mask and redrawn values bit for bit, the rest up to rounding."""
    expected = single(split)
    for result in ranks:
        assert same(result["mask"], expected["mask"]) == []
        assert len(result["after redraw"]) == len(expected["after redraw"]) == 3
        for weights, others in zip(result["after redraw"], ranks[0]["after redraw"], strict=True):
            assert same(weights, others) == [], "the ranks differ after a redraw"
        pairs = list(zip(result["after redraw"], expected["after redraw"], strict=True))
        for weights, others in pairs:
            assert weights.keys() == others.keys(), "canonical names are those of the plain network"
            for name, values in weights.items():
                torch.testing.assert_close(values, others[name], rtol=1e-4, atol=1e-5)
        if split != "random-each-generation":  # there the last mask says nothing of the first redraw
            for weights, others in pairs[1:]:
                for name in LAYERS:
                    redrawn = ~expected["mask"][name]
                    assert torch.equal(weights[name][redrawn], others[name][redrawn])
        assert result["collectives"] == [], "mask and redrawn values take no word between ranks"
        for record, other in zip(result["history"], expected["history"], strict=True):
            assert record["dense"] == pytest.approx(other["dense"], rel=1e-4)
            assert record["fit"] == pytest.approx(other["fit"], rel=1e-4)
            assert record["fit"].keys() == (set() if split in WITHOUT_SCORES else {"val_loss", "val_acc"})
            for name, sizes in record["magnitude"].items():
                assert sizes == pytest.approx(other["magnitude"][name], rel=1e-4)
        if expected["slim"] is not None:
            for name, values in result["slim"].items():
                torch.testing.assert_close(values, expected["slim"][name], rtol=1e-4, atol=1e-5)


@pytest.mark.compat(
    "Devices and strategies",
    "ModelParallelStrategy: FSDP2 (`fully_shard`)",
    "works",
    note="masks follow the shards; each rank draws its own part, and scores a slim network that is gathered",
)
def test_two_ranks_with_half_the_network_each(tmp_path: Path) -> None:
    ranks = run_world(2, programs.train, tmp_path, "fsdp", 2, options("kels"))
    assert_one_network(ranks, "kels")


def row(name: str, note: str = "") -> pytest.MarkDecorator:
    return pytest.mark.compat("Devices and strategies", name, "works", note=note)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        pytest.param("ddp", 2, marks=row("DDP", "mask and redrawn values take no word between the ranks")),
        pytest.param(
            "tp",
            2,
            marks=[pytest.mark.slow, row("ModelParallelStrategy: tensor parallel (`parallelize_module`)")],
        ),
        pytest.param(
            "both", 4, marks=[pytest.mark.slow, row("ModelParallelStrategy: FSDP2 and tensor parallel together")]
        ),
    ],
)
def test_other_ways_of_sharing_the_work(tmp_path: Path, kind: str, size: int) -> None:
    assert_one_network(run_world(size, programs.train, tmp_path, kind, size, options("kels")), "kels")


@pytest.mark.slow
def test_a_word_between_ranks_would_be_noticed() -> None:
    for broadcast, gathered in run_world(2, programs.count_something):
        assert any("broadcast" in name for name in broadcast)
        assert any("all_gather" in name for name in gathered)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["wels", "random-each-generation", "layers", "last-layer", "everything"])
@pytest.mark.parametrize(("kind", "size"), [("fsdp", 2), ("fsdp", 4), ("tp", 2), ("both", 4), ("ddp", 2), ("ddp", 4)])
def test_every_way_of_sharding(tmp_path: Path, kind: str, size: int, split: str) -> None:
    assert_one_network(run_world(size, programs.train, tmp_path, kind, size, options(split)), split)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_a_rank_keeps_its_own_part_of_a_mask_of_weights(tmp_path: Path, size: int) -> None:
    ranks = run_world(size, programs.train, tmp_path, "fsdp", size, options("wels"))
    for result in ranks:  # parts of rows that do not divide evenly are a little larger than the others
        assert result["mask bytes"] < 1.5 * single("wels")["mask bytes"] / size


@pytest.mark.slow
@pytest.mark.parametrize("split", ["kels", "wels", "random-each-generation"])
@pytest.mark.parametrize(
    ("kind", "size"),
    [("fsdp", 2), ("fsdp-full", 2), ("fsdp", 4), ("tp", 2), ("both-full", 4), ("ddp", 2), ("ddp", 4)],
)
def test_resume_is_bit_identical(tmp_path: Path, kind: str, size: int, split: str) -> None:
    """One checkpoint for all ranks, or a file of each; from the end of the first and of the second generation."""
    whole = run_world(size, programs.train_noisy, tmp_path / "whole", kind, size, options(split))
    for epoch in (0, 1):
        checkpoint = tmp_path / "whole" / f"epoch={epoch}.ckpt"
        assert checkpoint.is_file() == (kind == "ddp" or kind.endswith("full"))
        again = run_world(size, programs.train_noisy, tmp_path / "again", kind, size, options(split), checkpoint)
        for one, other in zip(whole, again, strict=True):
            assert same(one["weights"], other["weights"]) == []
            assert same(one["mask"], other["mask"]) == []
            assert one["history"] == other["history"]


SUMS = "Runs with `DDPStrategy(find_unused_parameters=True)` resume bit for bit"


@pytest.mark.parametrize(
    ("size", "exact"),
    [
        pytest.param(
            2,
            True,
            marks=pytest.mark.compat(
                "Checkpoints and interruptions", "DDP of 2 processes, resumed", "works", note="bit for bit"
            ),
        ),
        pytest.param(
            4,
            False,
            marks=[
                pytest.mark.slow,
                pytest.mark.compat(
                    "Checkpoints and interruptions",
                    "DDP of 3 and more processes, resumed",
                    "works",
                    note="the first step's gradients are summed in another order (last bit), which a sentence says; "
                    "bit for bit with `DDPStrategy(find_unused_parameters=True)`",
                ),
            ],
        ),
    ],
)
def test_what_ddp_itself_does_not_resume_exactly_is_said(tmp_path: Path, size: int, exact: bool) -> None:
    """Its own first step in each process; nothing that is ours depends on it. `ddp` above is the exact half."""
    whole = run_world(size, programs.train_noisy, tmp_path / "whole", "ddp-default", size, options("kels"))
    checkpoint = tmp_path / "whole" / "epoch=0.ckpt"
    again = run_world(size, programs.train_noisy, tmp_path / "again", "ddp-default", size, options("kels"), checkpoint)
    assert not any(SUMS in said for said in whole[0]["said"])
    assert any(SUMS in said for said in again[0]["said"]) is not exact
    for one, other in zip(whole, again, strict=True):
        assert (same(one["weights"], other["weights"]) == []) is exact
        for name, values in other["weights"].items():
            torch.testing.assert_close(values, one["weights"][name], rtol=1e-5, atol=1e-6)
        assert same(one["mask"], other["mask"]) == []
        for generation in (1, 2):  # of the resumed run's two generations, both are redrawn
            for name in LAYERS:
                redrawn = ~one["mask"][name]
                before, after = one["after redraw"][generation][name], other["after redraw"][generation - 1][name]
                assert torch.equal(before[redrawn], after[redrawn])


ANOTHER_WORLD = ("Checkpoints and interruptions", "another number of processes", "works")
WHAT_GOES_ON = "all goes on but the order of the data, augmentation and dropout, which a sentence says"


@pytest.mark.slow
@pytest.mark.parametrize("split", ["kels", "wels"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("fsdp-full", 2), ("fsdp-full", 4)),
        (("fsdp", 4), ("fsdp", 2)),
        (("fsdp-full", 2), ("single", 1)),
        (("ddp", 2), ("fsdp-full", 2)),
        pytest.param(("ddp", 2), ("ddp", 4), marks=pytest.mark.compat(*ANOTHER_WORLD, note=WHAT_GOES_ON)),
        (("ddp", 4), ("single", 1)),
        (("single", 1), ("ddp", 2)),
    ],
    ids=str,
)
def test_another_world_size_keeps_everything_but_the_order_of_the_data(
    tmp_path: Path, before: tuple[str, int], after: tuple[str, int], split: str
) -> None:
    """The data are in order here and nothing is random, so the whole run must come out the same."""
    kind, size = before
    run_world(size, programs.train, tmp_path / "before", kind, size, options(split))
    kind, size = after
    checkpoint = tmp_path / "before" / "epoch=0.ckpt"
    ranks = run_world(size, programs.resume, tmp_path / "after", kind, size, options(split), checkpoint)
    expected = single(split)
    if before[1] != after[1]:
        assert any(f"is of {before[1]} processes, this one of {after[1]}" in said for said in ranks[0]["said"])
    for result in ranks:
        assert same(result["mask"], expected["mask"]) == []
        for name, values in result["weights"].items():
            torch.testing.assert_close(values, expected["weights"][name], rtol=1e-4, atol=1e-5)
        for name in LAYERS:
            redrawn = ~expected["mask"][name]
            assert torch.equal(result["after redraw"][0][name][redrawn], expected["after redraw"][1][name][redrawn])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["keep", "clear"])
def test_optimizer_state_is_carried_over_shard_by_shard(tmp_path: Path, optimizer: str) -> None:
    arguments = options("kels", optimizer=optimizer)
    [expected] = run_world(1, programs.train_adam, tmp_path / "single", "single", 1, arguments)
    for result in run_world(2, programs.train_adam, tmp_path / "fsdp", "fsdp", 2, arguments):
        for name, values in result["weights"].items():
            torch.testing.assert_close(values, expected["weights"][name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["kels", "wels"])
def test_no_rank_holds_more_than_one_whole_parameter(tmp_path: Path, split: str) -> None:
    """Eight equal layers on four ranks: what is made at a boundary does not grow with their number."""
    largest, layers = 4 * programs.WIDE**2, 8
    for peaks in run_world(4, programs.peaks, tmp_path, split, layers):
        # Random numbers of one parameter, and what chooses among them: bool tensors of its shape.
        assert peaks["draw"] <= 3 * largest
        assert peaks["redraw"] <= 2 * largest
        assert peaks["slim"] is None or peaks["slim"] <= 2 * largest + peaks["slim network"]
        assert peaks["mask"] <= math.ceil(layers * programs.WIDE**2 / 8 / 4) * 1.01 + 4096


@pytest.mark.compat("Devices and strategies", "ModelParallelStrategy with split `snip` and the like", "refused")
def test_what_needs_the_whole_network_is_refused_by_name(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    cases = [
        ({"split": split}, f"does not support split '{split}' with ModelParallelStrategy: it judges weights by")
        for split in ("magnitude", "snip", "fisher", "importance")
    ]
    cases += [
        ({"reset": "rewind"}, "does not support reset 'rewind' with ModelParallelStrategy"),
        ({"phases": [Ascent(["model.4"])]}, "does not support phase"),
        ({"split": "wels"}, "Expected `score_fit=False` for split 'wels' with ModelParallelStrategy"),
        ({"split": "wels", "score_fit": "generation"}, "Expected `score_fit=False` for split 'wels'"),
    ]
    [messages] = run_world(1, programs.refusals, tmp_path, [arguments for arguments, _ in cases])
    for (arguments, expected), message in zip(cases, messages, strict=True):
        assert expected in message, arguments
    record_property("refusal", messages[1])


@pytest.mark.slow
@pytest.mark.parametrize(("size", "count"), [(2, 17), (4, 18)])
def test_scores_of_uneven_batches_are_those_of_lightnings_own_validation(tmp_path: Path, size: int, count: int) -> None:
    """Lightning fills the last batches up with images that it has shown already; the fit scores see the same ones."""
    for result in run_world(size, programs.train_uneven, tmp_path, size, options("kels"), count):
        for recorded, validated in zip(result["recorded"], result["validated"], strict=True):
            assert recorded == pytest.approx(validated, rel=1e-5)


def named(name: str) -> Any:
    """A strategy that cannot be had here (it needs GPUs or another library), by its name."""
    return type(name, (SingleDeviceStrategy,), {})(device=torch.device("cpu"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.compat("Devices and strategies", name, "refused"))
        for name in ("FSDPStrategy", "DeepSpeedStrategy")
    ],
)
def test_strategies_that_hide_their_weights_are_refused(
    tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    callback = KnowledgeEvolution(epochs_per_generation=1)
    trainer = make_trainer(tmp_path, strategy=named(name), max_epochs=2, callbacks=[callback])
    with pytest.raises(ValueError, match=f"does not support {name}: it .* Use `ModelParallelStrategy`") as caught:
        trainer.fit(Classifier(), train_loader(), val_loader())
    assert trainer.global_step == 0
    record_property("refusal", str(caught.value))
