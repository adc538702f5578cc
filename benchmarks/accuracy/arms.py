"""Every way to train that a study may compare, by its name: the controls, then what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.accuracy.settings import Setting
from benchmarks.accuracy.study import Arm

# Without a redraw nobody asks how good the fit hypothesis is, and scoring it costs another validation.
UNSCORED = "generations.score_fit=false"
NOTHING = "redraw=none"
LLF = ("split=layers", "split.start=layer4")
REESTIMATED = "generations.fit_norm=reestimate"
CROSS_ENTROPY, CS_KD, BORN_AGAIN = "loss=cross_entropy", "loss=cs_kd", "loss=born_again"
EMA = "callbacks=ema"
# Operations of the slim network to those of the dense one; a little more than that in all settings.
SLIM_SHARE = 0.27


def evolve(epochs: int, generations: int, *more: str) -> list[str]:
    """Overrides of a training in generations, `epochs` in all (what does not divide evenly is left out)."""
    return [f"generations.count={generations}", f"generations.epochs={epochs // generations}", *more]


def catalogue(setting: Setting) -> dict[str, Arm]:
    """All arms in a setting.

    Args:
        setting: The setting, which says how long they are and how wide the networks.
    """
    epochs, image_sizes = setting.epochs, [round(setting.image_size * share) for share in (0.5, 0.5, 0.75, 0.75, 1)]
    slim = f"backbone.width={setting.width / 2:g}"
    once = partial(evolve, epochs, 1, UNSCORED)
    five = partial(evolve, epochs, 5)
    third = epochs // 3
    shrinking = [epochs // 2, epochs // 4, epochs * 3 // 20, epochs // 10]
    like = {"rate_of": "ke-5"}
    arms = [
        # Controls.
        Arm("long", "the dense long baseline: no redraw, one schedule", once()),
        Arm("slim-scratch", "a network of the slim network's size, trained from scratch as long", once(slim)),
        Arm(
            "slim-scratch-equal",
            "slim from scratch for as many training operations as the dense network's",
            evolve(round(epochs / SLIM_SHARE), 1, UNSCORED, slim),
            rate_of="slim-scratch",
        ),
        Arm("restarts-5", "the same restarts, nothing redrawn", five(NOTHING)),
        Arm(
            "pruned",
            "the dense long baseline pruned to the slim size by weight magnitude (torch-pruning), then trained on for "
            "half as long",
            evolve(epochs // 2, 1, UNSCORED, slim),
            after="long",
            take=pruned,
        ),
        Arm(
            "distilled",
            "slim from scratch as long, taught by the dense long baseline",
            once(slim, "loss=distillation"),
            after="long",
            take=taught,
        ),
        Arm(
            "distilled-llf",
            "slim from scratch as long, taught by the dense network that later-layer forgetting has trained",
            once(slim, "loss=distillation"),
            rate_of="distilled",
            after="llf-5",
            take=taught,
        ),
        Arm(
            "long-third",
            "the dense long baseline at a third of the length",
            evolve(third, 1, UNSCORED),
            rate_of="long",
        ),
        Arm(
            "slim-scratch-third",
            "slim from scratch at a third of the length",
            evolve(third, 1, UNSCORED, slim),
            rate_of="slim-scratch",
        ),
        Arm("long-ema", "the dense long baseline, moving average of its weights", once(EMA), rate_of="long"),
        Arm("slim-scratch-ema", "slim from scratch, moving average", once(slim, EMA), rate_of="slim-scratch"),
        # Knowledge Evolution and its nearest relatives, 5 generations unless their names say otherwise.
        Arm("ke-5", "Knowledge Evolution, KELS r = 0.5, 5 generations", five()),
        Arm("llf-5", "later-layer forgetting: layer4 and the classifier redrawn", five(*LLF)),
        Arm(
            "llf-in-kels-5",
            "KELS r = 0.5, and layer4 and the classifier redrawn inside the slim network, too",
            five("split=llf-in-kels"),
        ),
        Arm(
            "llf-10",
            "later-layer forgetting, 10 generations",
            evolve(epochs, 10, *LLF),
            rate_of="llf-5",
        ),
        Arm(
            "slim-llf-5",
            "later-layer forgetting in a network of the slim network's size",
            five(*LLF, slim),
            rate_of="slim-scratch",
        ),
        Arm(
            "slim-llf-equal",
            "slim-llf-5 for as many training operations as the dense network's",
            evolve(round(epochs / SLIM_SHARE), 5, *LLF, slim),
            rate_of="slim-scratch",
        ),
        Arm(
            "slim-restarts-equal",
            "slim-llf-equal's restarts, nothing redrawn",
            evolve(round(epochs / SLIM_SHARE), 5, NOTHING, slim),
            rate_of="slim-scratch",
        ),
        Arm(
            "slim-llf-10",
            "the same in 10 generations",
            evolve(epochs, 10, *LLF, slim),
            rate_of="slim-scratch",
        ),
        Arm(
            "slim-llf-taught",
            "slim-llf-5, taught by the dense network that later-layer forgetting has trained",
            five(*LLF, slim, "loss=distillation"),
            rate_of="slim-scratch",
            after="llf-5",
            take=taught,
        ),
        Arm("ke-10", "Knowledge Evolution, KELS r = 0.5, 10 generations", evolve(epochs, 10)),
        Arm("ke-3", "Knowledge Evolution, KELS r = 0.5, 3 generations", evolve(epochs, 3)),
        Arm("ke-2", "Knowledge Evolution, KELS r = 0.5, 2 generations", evolve(epochs, 2), **like),
        Arm("wels-5", "Knowledge Evolution, WELS r = 0.5", five("split=wels"), **like),
        Arm(
            "random-5",
            "another random half of the weights each generation",
            five("split=random-each-generation"),
            **like,
        ),
        Arm("ke-reestimated", "ke-5, fit scores with re-estimated statistics", five(REESTIMATED), **like),
        # Losses, for all three.
        *(
            Arm(f"{name}-{short}", f"{name} with {spoken}", overrides(loss), rate_of=name)
            for short, spoken, loss in (
                ("ce", "plain cross-entropy", CROSS_ENTROPY),
                ("cs-kd", "class-wise self-distillation (CS-KD), whose batches hold pairs", CS_KD),
            )
            for name, overrides in (("long", once), ("slim-scratch", partial(once, slim)), ("ke-5", five))
        ),
        # Cheaper generations.
        Arm(
            "ke-shrinking",
            f"4 generations of {', '.join(map(str, shrinking))} epochs",
            ["generations.count=4", f"generations.epochs={shrinking}".replace(" ", "")],
            **like,
        ),
        Arm("ke-one-cosine", "one cosine over all 5 generations", five("redraw.lr_schedule=continue"), **like),
        Arm(
            "ke-plateau",
            "a generation ends when validation has not improved for 10 epochs (20 to 80 epochs)",
            [
                "generations=plateau",
                "generations.count=null",
                "generations.epochs=null",
                f"trainer.max_epochs={epochs}",
                "generations.end.least=20",
                "generations.end.most=80",
                "generations.end.patience=10",
            ],
            **like,
        ),
        Arm(
            "ke-slim-first-5",
            "the slim network alone for 70 % of each generation, then the dense one from there",
            ["generations=slim_first", *five()],
            **like,
        ),
        *(
            Arm(
                name,
                f"{what}; the slim network alone for 95 % of each generation, which is a third of the training",
                ["generations=slim_first", *five("generations.phases.0.end=0.95", *more)],
                rate_of=rate_of,
            )
            for name, what, more, rate_of in (
                ("ke-slim-first-third", "KELS", (), "ke-5"),
                ("llf-slim-first-third", "llf-in-kels", ("split=llf-in-kels",), "slim-scratch"),
            )
        ),
        Arm(
            "ke-small-images",
            "5 generations on images of 1/2, 1/2, 3/4, 3/4 and the whole size",
            five(f"generations.schedule={{image_size:{image_sizes}}}".replace(" ", "")),
            **like,
        ),
        Arm(
            "slimmable-1",
            "one generation; in its last third the slim and the dense network learn together",
            ["generations=slimmable", *evolve(epochs, 1)],
            rate_of="long",
        ),
        Arm(
            "slimmable-third",
            "the same at a third of the length",
            ["generations=slimmable", *evolve(third, 1)],
            rate_of="long",
        ),
        Arm(
            "llf-third",
            "later-layer forgetting at a third of the length",
            evolve(third // 5 * 5, 5, *LLF),
            rate_of="llf-5",
        ),
        Arm("ke-third", "generations of a third of the length", evolve(third // 5 * 5, 5), **like),
        # Better generations.
        *(
            Arm(
                f"slimmable-{name}",
                f"one generation; {when} both networks learn together, the slim one from the dense one",
                ["generations=slimmable", "loss=in_place", *evolve(epochs, 1), *more],
                rate_of="long",
            )
            for name, when, more in (
                ("taught", "in its last third", ()),
                ("taught-whole", "all along", ("generations.phases.0.begin=0.0",)),
            )
        ),
        Arm("ke-born-again", "KELS; the last generation's dense network teaches", five(BORN_AGAIN), **like),
        Arm(
            "ke-born-again-ema",
            "KELS; the moving average of the last generation teaches",
            five(BORN_AGAIN, "loss.teacher=ema"),
            **like,
        ),
        Arm(
            "llf-in-kels-born-again",
            "llf-in-kels, and the last generation teaches",
            five("split=llf-in-kels", BORN_AGAIN),
            rate_of="llf-in-kels-5",
        ),
        Arm("ke-ema", "KELS, moving average of the weights, begun anew at each redraw", five(EMA), **like),
        Arm(
            "ke-wide-redraw", "KELS, redrawn 2.4 times as wide (kaiming_normal)", five("redraw=kaiming_normal"), **like
        ),
        Arm(
            "ke-slim-last",
            "KELS; the last generation trains the slim network alone, taught by the dense one",
            five(
                "generations=slim_first",
                BORN_AGAIN,
                "loss.weight=0.9",
                "loss.temperature=4",
                "generations.phases.0.end=1.0",
                "+generations.phases.0.first_generation=5",
            ),
            **like,
        ),
        Arm(
            "ke-taught",
            "KELS, taught by the dense long baseline in all generations",
            five("loss=distillation"),
            after="long",
            take=taught,
            **like,
        ),
        # Ablations: one thing is another than in ke-5.
        *(
            Arm(f"ke-{name}", f"ke-5 with {override}", five(override), **like)
            for name, override in (
                ("reset-initial", "redraw=initial"),
                ("reset-normal", "redraw=kaiming_normal"),
                ("reset-rewind", "redraw=rewind"),
                ("reset-zero", "redraw=zero"),
                ("norm-reset", "redraw.norm=reset"),
                ("optimizer-keep", "redraw.optimizer=keep"),
                ("optimizer-clear", "redraw.optimizer=clear"),
                ("schedule-continue", "redraw.lr_schedule=continue"),
                ("rate-0.3", "split.rate=0.3"),
                ("rate-0.8", "split.rate=0.8"),
            )
        ),
    ]
    return {arm.name: arm for arm in arms}


def taught(folder: Path) -> Sequence[str]:
    """Let the network of a training teach.

    Args:
        folder: The training's folder.
    """
    return [f"loss.teacher.checkpoint={folder / 'checkpoints' / 'best-dense.ckpt'}"]


def pruned(folder: Path) -> Sequence[str]:
    """Prune the network of a training to half its channels, and begin from there.

    Args:
        folder: The training's folder.
    """
    from benchmarks.accuracy.pruning import prune  # torch is imported where it is needed

    return [f"backbone.weights={prune(folder / 'checkpoints' / 'best-dense.ckpt', folder / 'pruned.pth')}"]
