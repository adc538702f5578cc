"""The accuracy benchmark: which job is next, what a difference is worth, and a tiny study from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from scipy import stats

from benchmarks.accuracy import page
from benchmarks.accuracy.arms import catalogue, taught
from benchmarks.accuracy.family import ARMS, CARDS, family, write_cards
from benchmarks.accuracy.ledger import Ledger, of_study, scores
from benchmarks.accuracy.runner import run
from benchmarks.accuracy.settings import SETTINGS
from benchmarks.accuracy.statistics import paired_difference
from benchmarks.accuracy.studies import PLANS, STUDIES
from benchmarks.accuracy.study import Arm, Study
from lightning_ke.app.backbones import torchvision_backbone
from lightning_ke.app.build import build
from lightning_ke.app.experiment import run as run_one
from lightning_ke.app.typed import check_types
from lightning_ke.masks import load_mask
from lightning_ke.splits import list_splits
from tests.app.commands import composed

LONG, SLIM = (Arm(name, name, ["generations.count=1"]) for name in ("long", "slim-scratch"))
KE = Arm("ke", "ke", [])


def study(**changes):
    settings = {"arms": [LONG, SLIM], "rates": (0.1, 0.2, 0.4), "seeds": (0, 1)} | changes
    return Study("trial", "Trial", "tiny", same_size="slim-scratch", base=[], **settings)


def finished(folder, name, accuracy):
    """What a training leaves behind, as far as the ledger reads it."""
    network = {"val_acc": accuracy, "test_acc": accuracy - 0.01, "operations": 100, "parameters": 10}
    result = {
        "networks": {"dense": network, "slim": network},
        "monitor": "val_acc",
        "history": [{"epochs": 3, "dense": {"val_acc": accuracy}, "fit": {}}] * 2,
        "training_operations": 5000,
        "seconds": 1.4,
        "environment": dict.fromkeys(("lightning_ke", "lightning", "torch", "python"), "1.0"),
    }
    (folder / name).mkdir(parents=True)
    (folder / name / "results.json").write_text(json.dumps(result))


def names(jobs):
    return [job.name for job in jobs]


def test_learning_rates_come_first_one_rate_for_all_arms_after_the_other():
    assert names(study().next_jobs({}))[:3] == ["long-lr0.1-s0", "slim-scratch-lr0.1-s0", "long-lr0.2-s0"]


def test_other_seeds_follow_with_the_best_rate():
    scores = {"long-lr0.1-s0": 0.1, "long-lr0.2-s0": 0.3, "long-lr0.4-s0": 0.2}
    assert names(study(arms=[LONG]).next_jobs(scores)) == ["long-lr0.2-s1"]


@pytest.mark.parametrize(("best", "beyond"), [(0.1, 0.05), (0.4, 0.8)])
def test_a_best_rate_at_the_edge_is_not_believed(best, beyond):
    scores = {f"long-lr{rate:g}-s0": 0.9 if rate == best else 0.1 for rate in (0.1, 0.2, 0.4)}
    tried = study(arms=[LONG])
    assert names(tried.next_jobs(scores)) == [f"long-lr{beyond:g}-s0"]
    assert tried.chosen_rate(LONG, scores) is None
    assert tried.chosen_rate(LONG, scores | {f"long-lr{beyond:g}-s0": 0.0}) == best


def test_nothing_is_left_when_all_has_been_run():
    scores = {f"long-lr{rate:g}-s0": score for rate, score in ((0.1, 0.1), (0.2, 0.3), (0.4, 0.2))}
    assert names(study(arms=[LONG]).next_jobs(scores | {"long-lr0.2-s1": 0.3})) == []


def test_what_another_machine_has_trained_is_done(tmp_path):
    """The committed rows are enough: neither the learning rates nor the seeds are trained again."""
    first = Ledger(tmp_path / "tiny.csv", tmp_path / "first")
    for rate, accuracy in ((0.1, 0.3), (0.2, 0.5), (0.4, 0.4)):
        finished(first.folder, f"long-lr{rate:g}-s0", accuracy)
    first.update(study(arms=[LONG]))
    second = Ledger(first.path, tmp_path / "second")
    table = second.update(study(arms=[LONG]))
    assert second.here() == []
    assert names(study(arms=[LONG]).next_jobs(scores(table), second.here())) == ["long-lr0.2-s1"]
    finished(second.folder, "long-lr0.2-s1", 0.6)
    assert names(study(arms=[LONG]).next_jobs(scores(second.update(study(arms=[LONG]))))) == []
    table = of_study(study(arms=[LONG]), second.read())
    assert list(table["tuned"]) == [False] * 2 + [True] * 4 + [False] * 2
    assert list(table["generations"].iloc[:2]) == ["0.3000 0.3000", "nan nan"]


def test_other_studies_of_a_setting_keep_their_rows(tmp_path):
    ledger = Ledger(tmp_path / "tiny.csv", tmp_path / "jobs")
    finished(ledger.folder, "long-lr0.1-s0", 0.3)
    finished(ledger.folder, "ke-lr0.1-s0", 0.2)
    ledger.update(study(arms=[KE]))
    assert set(ledger.update(study(arms=[LONG]))["arm"]) == {"long", "ke"}
    assert set(of_study(study(arms=[LONG]), ledger.read())["arm"]) == {"long"}


def test_two_things_of_one_name_are_not_mixed(tmp_path):
    ledger = Ledger(tmp_path / "tiny.csv", tmp_path / "jobs")
    finished(ledger.folder, "long-lr0.1-s0", 0.3)
    ledger.update(study(arms=[LONG]))
    with pytest.raises(ValueError, match="Expected arm 'long' to be what its rows in the ledger were"):
        ledger.update(study(arms=[Arm("long", "long", ["generations.count=3"])]))


def test_what_a_job_needs_is_trained_first_and_again_where_its_folder_is_missing():
    taught = Arm("taught", "learns from the long one", [], after="long")
    both = study(arms=[LONG, taught], rates=(0.1,), seeds=(0,))
    assert set(names(both.next_jobs({}))) == {"long-lr0.1-s0"}
    known = {"long-lr0.1-s0": 0.5}
    assert names(both.next_jobs(known))[0] == "long-lr0.1-s0"
    assert names(both.next_jobs(known, here=["long-lr0.1-s0"]))[0] == "taught-lr0.1-s0"


def test_some_arms_bring_what_they_need():
    taught = Arm("taught", "learns from the long one", [], rate_of="ke", after="long")
    whole = study(arms=[LONG, SLIM, KE, taught])
    assert whole.needed_for(["slim-scratch"]) == {"slim-scratch"}
    assert whole.needed_for(["taught"]) == {"taught", "ke", "long"}
    with pytest.raises(ValueError, match="it has no 'kee'"):
        whole.needed_for(["kee"])


def test_difference_is_paired_and_has_students_interval():
    ours = pd.Series({0: 0.5, 1: 0.6, 2: 0.7, 7: 0.0})
    control = pd.Series({2: 0.6, 1: 0.58, 0: 0.47})
    difference = paired_difference(ours, control)
    interval = stats.ttest_rel([0.5, 0.6, 0.7], [0.47, 0.58, 0.6]).confidence_interval()
    assert difference.seeds == 3
    assert difference.mean - difference.half_width == pytest.approx(interval.low)
    assert difference.mean + difference.half_width == pytest.approx(interval.high)
    assert not difference.beats


def test_one_seed_is_no_difference():
    assert paired_difference(pd.Series({0: 0.5}), pd.Series({0: 0.1, 1: 0.2})) is None


def test_clearly_better_beats_with_five_seeds():
    better, worse = pd.Series([0.5, 0.61, 0.7, 0.66, 0.58]), pd.Series([0.4, 0.5, 0.6, 0.57, 0.49])
    assert paired_difference(better, worse).beats
    assert not paired_difference(better[:4], worse[:4]).beats
    assert not paired_difference(worse, better).beats


def test_the_standard_error_of_one_run_is_that_of_its_test_images_and_accuracy():
    """Of slim networks that were never trained to stand alone it says nothing."""
    table = pd.DataFrame({"network": ["dense", "dense", "slim"], "test_acc": [0.4, 0.6, 0.01]})
    assert page.standard_error(replace(study(), test_images=400), table) == pytest.approx(2.5)
    assert page.standard_error(replace(study(), test_images=1600), table) == pytest.approx(1.25)


def test_only_what_was_redrawn_has_a_slim_network():
    """A mask is drawn for every arm; where nothing is redrawn, what it keeps was never trained to stand alone."""
    arms = [LONG, SLIM, Arm("ke", "ke", []), Arm("restarts", "restarts", ["redraw=none"])]
    rows = [
        {"arm": arm.name, "network": network, "lr": 0.1, "seed": 0, "tuned": True, "val_acc": 0.5, "test_acc": 0.5}
        | {"operations": 1e6, "training_operations": 1e9, "test_loss": 1.5, "test_ece": None}
        for arm in arms
        for network in ("dense", "slim")
    ]
    text = page.comparison(study(arms=arms), pd.DataFrame(rows))
    assert [line.split(" | ")[:2] for line in text.splitlines() if "slim |" in line] == [["| ke", "slim"]]


def test_calibration_is_shown_where_it_was_measured():
    row = {"arm": "long", "network": "dense", "lr": 0.1, "seed": 0, "tuned": True, "val_acc": 0.5, "test_acc": 0.5}
    row |= {"operations": 1e6, "training_operations": 1e9, "test_loss": 1.5}
    for error, shown in ((0.051, "| NLL | ECE |"), (None, "| test | ops |")):
        text = page.comparison(study(arms=[LONG]), pd.DataFrame([row | {"test_ece": error}]))
        assert shown in text
        assert ("| 1.50 | 5.1 |" in text) == (error is not None)


def test_what_is_as_small_as_the_slim_network_stands_beside_every_control_of_that_size():
    arms = [LONG, SLIM, Arm("pruned", "pruned", []), Arm("ke", "ke", [])]
    scores = {("long", "dense"): 0.6, ("slim-scratch", "dense"): 0.4, ("pruned", "dense"): 0.45, ("ke", "slim"): 0.5}
    rows = [
        {"arm": arm, "network": network, "lr": 0.1, "seed": seed, "tuned": True, "test_acc": score + seed / 100}
        | {"operations": 4e6 if arm == "long" else 1e6}
        for (arm, network), score in scores.items()
        for seed in range(5)
    ]
    text = page.beside_controls(replace(study(arms=arms), controls=("slim-scratch", "pruned")), pd.DataFrame(rows))
    lines = [line.split(" | ")[1:2] + line.split(" | ")[4:] for line in text.splitlines()[2:]]
    assert lines == [
        ["small", "-", "-5.0 ± 0.0 |"],
        ["small", "**+5.0 ± 0.0**", "- |"],
        ["slim", "**+10.0 ± 0.0**", "**+5.0 ± 0.0** |"],
    ]


@pytest.mark.slow
def test_a_page_names_the_arms_that_are_left(tmp_path):
    ledger = Ledger(tmp_path / "tiny.csv", tmp_path / "jobs")
    trial = study(arms=[LONG, SLIM], rates=(0.1,), seeds=(0,))
    finished(ledger.folder, "slim-scratch-lr0.1-s0", 0.3)
    page.write(trial, of_study(trial, ledger.update(trial)), tmp_path)
    half = (tmp_path / f"{trial.name}.md").read_text()
    assert "| slim-scratch | small | 1 |" in half
    assert "Not trained yet, or its learning rate not found: long." in half
    finished(ledger.folder, "long-lr0.1-s0", 0.3)
    page.write(trial, of_study(trial, ledger.update(trial)), tmp_path)
    assert "Not trained yet" not in (tmp_path / f"{trial.name}.md").read_text()


def test_a_tiny_study_is_run_stopped_and_written(tmp_path):
    tiny = [
        "experiment=smoke",
        "threads=1",
        "warmup=0",
        "trainer.enable_progress_bar=false",
    ]
    arms = [
        Arm("long", "long", ["generations.count=1", "generations.epochs=2"]),
        Arm("slim-scratch", "slim", ["generations.count=1", "generations.epochs=2", "backbone.width=0.125"]),
        Arm("ke", "evolved", ["generations.count=2", "generations.epochs=1"]),
    ]
    trial = Study("trial", "Trial", "tiny", arms, "slim-scratch", tiny, (0.001, 0.01, 0.1), (0, 1))
    ledger = Ledger(tmp_path / "results" / "tiny.csv", tmp_path / "trial")
    assert run(trial, ledger, seconds=0) == []
    assert ledger.read().empty
    assert run(trial, ledger, seconds=3600, arms=["slim-scratch"]) == []
    assert {name.rpartition("-lr")[0] for name in ledger.here()} == {"slim-scratch"}
    assert run(trial, ledger, seconds=3600) == []
    table = of_study(trial, ledger.update(trial))
    page.write(trial, table, tmp_path / "results")
    tuned = table[table["tuned"] & (table["network"] == "dense")]
    assert {(arm, seed) for arm, seed in zip(tuned["arm"], tuned["seed"], strict=True)} == {
        (arm.name, seed) for arm in arms for seed in (0, 1)
    }
    assert (table["epochs"] == 2).all()
    written = (tmp_path / "results" / "trial.md").read_text()
    for _, row in tuned[tuned["seed"] == 0].iterrows():
        result = json.loads((tmp_path / "trial" / f"{row['arm']}-lr{row['lr']:g}-s0" / "results.json").read_text())
        assert row["test_acc"] == result["networks"]["dense"]["test_acc"]
        network = "small" if row["arm"] == "slim-scratch" else "dense"
        assert f"| {row['arm']} | {network} | {row['lr']:g} | 2 |" in written


def test_one_learning_rate_is_taken_as_it_is():
    alone = study(rates=(0.1,))
    assert names(alone.next_jobs({}))[:2] == ["long-lr0.1-s0", "slim-scratch-lr0.1-s0"]
    scores = {"long-lr0.1-s0": 0.1, "slim-scratch-lr0.1-s0": 0.2}
    assert names(alone.next_jobs(scores)) == ["long-lr0.1-s1", "slim-scratch-lr0.1-s1"]


@pytest.mark.parametrize("name", PLANS)
def test_every_arm_of_a_study_composes_as_a_whole_run(name):
    trial = STUDIES[name]("", "data", [0])
    for arm in trial.arms:
        taken = taught(Path("before")) if arm.take is taught else ()
        config = composed(*trial.base, *arm.overrides, *taken, "optimizer.lr=0.1", "seed=0", "logger=none")
        assert not OmegaConf.missing_keys(config), arm.name
        check_types(config)
    assert {arm.rate_of or arm.name for arm in trial.arms} <= {arm.name for arm in trial.arms}
    assert {arm.after for arm in trial.arms} <= {"", *(arm.name for arm in trial.arms)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", catalogue(SETTINGS["flowers102"]))
def test_every_arm_trains_to_the_end(tmp_path, flowers_mini, name):
    """Five epochs of two batches of real photographs, in as many generations as the arm has at most."""
    setting = SETTINGS["flowers102"]
    arm = catalogue(setting)[name]
    short = [f"trainer.limit_{part}_batches=2" for part in ("train", "val", "test")]
    short += ["warmup=0", "logger=none", "trainer.check_val_every_n_epoch=1", "datamodule.batch_size=16"]
    data = ["datamodule=folder", f"datamodule.root={flowers_mini}", "datamodule.image_size=64"]
    taken = []
    if arm.after:
        first = ["generations.count=1", "generations.epochs=1", "redraw=none", "generations.score_fit=false"]
        run_one(composed(*setting.base, *data, *short, *first), tmp_path / "first")
        taken = [] if name == "pruned" else arm.take(tmp_path / "first")
    quick = [_shorter(override) for override in arm.overrides]
    run_one(composed(*setting.base, *data, *quick, *taken, *short), tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    count = dict(override.split("=", 1) for override in arm.overrides)["generations.count"]
    assert count == "null" or [record["epochs"] for record in results["history"]] == [1] * int(count)
    assert results["training_operations"] > 0
    assert "slim" in results["networks"] or not (arm.trains_slim and _structured(arm))


def _shorter(override):
    """An override of an arm's length, with one epoch for each generation."""
    key, _, value = override.partition("=")
    if key == "generations.epochs" and value != "null":
        return f"{key}={[1] * value.count(',') + [1] if value.startswith('[') else 1}".replace(" ", "")
    return {
        "trainer.max_epochs": "trainer.max_epochs=5",
        "generations.end.least": "generations.end.least=1",
        "generations.end.most": "generations.end.most=2",
        "generations.end.patience": "generations.end.patience=1",
    }.get(key, override)


def _structured(arm):
    """Whether an arm's split keeps whole channels."""
    return build(composed(*(override for override in arm.overrides if override.startswith("split"))).split).structured


def test_the_paper_s_setting_has_the_same_arms():
    small, paper = STUDIES["better"]("", "data", [0]), STUDIES["better"]("flowers102-paper", "data", [0])
    assert [arm.name for arm in small.arms] == [arm.name for arm in paper.arms]
    assert (paper.setting, paper.name) == ("flowers102-paper", "better-flowers102-paper")
    assert "backbone.width=0.5" in paper.arm("slim-scratch").overrides


def test_a_variant_has_the_learning_rate_of_its_original():
    variant = Arm("variant", "as ke, but", [], rate_of="long")
    scores = {"long-lr0.1-s0": 0.1, "long-lr0.2-s0": 0.3, "long-lr0.4-s0": 0.2}
    assert names(study(arms=[LONG, variant], seeds=[0]).next_jobs(scores)) == ["variant-lr0.2-s0"]


def test_what_is_learned_from_is_paid_for(tmp_path):
    ledger = Ledger(tmp_path / "tiny.csv", tmp_path / "jobs")
    taught_arm = Arm("taught", "learns from the long one", [], rate_of="long", after="long")
    both = study(arms=[LONG, taught_arm], rates=(0.1,), seeds=(0,))
    finished(ledger.folder, "long-lr0.1-s0", 0.3)
    finished(ledger.folder, "taught-lr0.1-s0", 0.2)
    table = of_study(both, ledger.update(both))
    assert dict(zip(table["arm"], table["training_operations"], strict=True)) == {"long": 5000, "taught": 10000}


@pytest.mark.slow  # needs torch-pruning, which the fast tests do without
def test_pruning_half_of_a_network_leaves_one_of_half_the_width(tmp_path):
    from benchmarks.accuracy import pruning

    short = ["experiment=smoke", "generations.count=1", "generations.epochs=1", "warmup=0", "logger=none"]
    run_one(composed(*short, "trainer.limit_train_batches=2", "backbone.width=0.25"), tmp_path / "long")
    weights = pruning.prune(tmp_path / "long" / "checkpoints" / "best-dense.ckpt", tmp_path / "pruned.pth")
    narrow = torchvision_backbone("resnet18", num_classes=10, in_channels=1, width=0.125, weights=weights)
    assert {name: value.shape for name, value in torch.load(weights).items()} == {
        name: value.shape for name, value in narrow.state_dict().items()
    }


@pytest.mark.slow
def test_a_mask_is_searched_in_the_very_weights_that_are_trained(tmp_path):
    """What is left of the untrained network is already better than chance, and a run takes it as its mask."""
    from benchmarks.accuracy.supermask import search

    short = ["experiment=demo", "generations.count=1", "generations.epochs=2", "warmup=0", "logger=none"]
    run_one(composed(*short, "redraw=none", "generations.score_fit=false"), tmp_path / "long")
    found = load_mask(search(tmp_path / "long", tmp_path / "mask.pt"))
    assert found.fit_share == pytest.approx(0.5, abs=0.01)
    # Two epochs at a learning rate of zero train nothing: what is scored is the mask.
    still = [*short, "split=mask", f"split.mask={tmp_path / 'mask.pt'}", "optimizer.lr=0", "redraw=none"]
    run_one(composed(*still, "generations.fit_norm=reestimate"), tmp_path / "masked")
    assert load_mask(tmp_path / "masked" / "checkpoints" / "last.ckpt") == found
    history = json.loads((tmp_path / "masked" / "results.json").read_text())["history"]
    assert history[-1]["fit"]["val_acc"] > 0.3 > history[-1]["dense"]["val_acc"]


def test_every_arm_of_the_family_composes_is_as_long_as_the_others_and_has_a_card():
    whole = family("small", "unused", [0])
    assert {card for card, _, _ in ARMS.values()} <= {path.stem for path in CARDS.glob("*.md")}
    for arm in whole.arms:
        taken = {"edge-popup": ["split.mask=FILE"], "distilled": taught(Path("before"))}.get(arm.name, ())
        config = composed(*whole.base, *arm.overrides, *taken, "optimizer.lr=0.1", "seed=0", "logger=none")
        assert not OmegaConf.missing_keys(config), arm.name
        length, generations = config.trainer.max_epochs, config.generations
        assert (length or generations.count * generations.epochs) == 30, "all are trained equally long"
    named = " ".join(override for arm in whole.arms for override in arm.overrides)
    missing = [name for name in list_splits() if f"split={name}" not in named]
    assert missing == [], "every split has an arm"


def test_what_was_measured_is_written_into_the_cards(tmp_path):
    for card in {card for card, _, _ in ARMS.values()}:
        (tmp_path / f"{card}.md").write_text((CARDS / f"{card}.md").read_text())
    rows = [
        ("long", "dense", 0.7, 0),
        ("long", "dense", 0.8, 1),
        ("kels", "dense", 0.72, 0),
        ("kels", "dense", 0.84, 1),
    ]
    rows += [
        ("kels", "slim", 0.5, 0),
        ("wels", "dense", 0.6, 0),
        *(("slim-scratch", "dense", 0.55, seed) for seed in (0, 1)),
    ]
    table = pd.DataFrame(rows, columns=["arm", "network", "test_acc", "seed"])
    for _ in range(2):  # a second time replaces the first
        assert write_cards(table, tmp_path) == ["kels", "wels"]
    [row] = [line for line in (tmp_path / "kels.md").read_text().splitlines() if "**Measured**" in line]
    assert (
        "78.0 %, slim 50.0 % (long baseline 75.0 %, difference +3.0 ± 12.7, slim from scratch 55.0 %; 2 seeds)" in row
    )
    # Beside the baseline of the same seed.
    assert "60.0 % (long baseline 70.0 %; one seed)" in (tmp_path / "wels.md").read_text()
    assert "Measured" not in (tmp_path / "snip.md").read_text()
