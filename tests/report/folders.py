"""Run folders as `ke-train` leaves them, without the training."""

import json

from omegaconf import OmegaConf

LAYERS = {"conv1": [8, 3, 3, 3], "layer1.conv": [8, 8, 3, 3], "fc": [10, 8]}


def config_of(*, seed=0, rate=0.5, count=3, epochs=2, **other):
    """A resolved configuration with what matters for a report; other keys are dotted."""
    config = {
        "seed": seed,
        "monitor": "val_acc",
        "mode": "max",
        "split": {"_target_": "lightning_ke.splits.Kels", "rate": rate},
        "generations": {"count": count, "epochs": epochs},
        "redraw": {"reset": "layer"},
        "backbone": {"name": "resnet18", "width": 0.5},
        "optimizer": {"lr": 0.1},
        "datamodule": {"seed": seed},
        "logger": {"csv": {"save_dir": f"somewhere/{seed}/{rate}"}},
    }
    config = OmegaConf.create(config)
    for key, value in other.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return OmegaConf.to_container(config)


def history_of(config, score=0.6):
    """Dense scores rise by 0.01 in each generation, fit ones begin at 0.1 and meet them."""
    count, epochs = config["generations"]["count"], config["generations"]["epochs"]
    return [
        {
            "generation": number,
            "epochs": epochs,
            "dense": {"val_acc": score + 0.01 * number, "val_loss": 1.0},
            "fit": {"val_acc": 0.1 if number == 1 else score + 0.01 * number - 0.005, "val_loss": 2.0},
            "ended": "length",
            "lr": {"first": 0.1, "highest": 0.1, "last": 0.01},
        }
        for number in range(1, count + 1)
    ]


def mask_of(rate):
    """The share `rate` of every parameter."""
    mask = []
    for name, shape in LAYERS.items():
        mask.append({"name": f"net.{name}.weight", "shape": shape, "fit": rate})
        mask.append({"name": f"net.{name}.bias", "shape": shape[:1], "fit": rate})
    return mask


def write_run(folder, state="finished", *, error=None, score=0.6, closed=None, **settings):
    """Write a run folder; `closed` generations were closed before it ended in this state."""
    config = config_of(**settings)
    history = history_of(config, score)
    (folder / "log").mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    (folder / "status.json").write_text(json.dumps({"state": state, "error": error, "started": "now", "seconds": 90.0}))
    total = config["generations"]["count"] * config["generations"]["epochs"]
    lines = ["epoch,ke/fit/val_loss,lr-SGD,train_loss,val_acc,val_loss"]
    for epoch in range(total):
        lines += [
            f"{epoch},{3 - epoch / total},,,0.5,{2 + score - epoch / total}",
            f"{epoch},,0.1,{2.5 - epoch / total},,",
        ]
    (folder / "log" / "metrics.csv").write_text("\n".join(lines))
    records = history if closed is None else history[:closed]
    rows = ["generation,epochs,dense/val_acc,fit/val_acc,ended,lr/first,lr/last,magnitude/fc.weight/fit"]
    rows += [
        f"{r['generation']},{r['epochs']},{r['dense']['val_acc']},{r['fit']['val_acc']},length,0.1,0.01,0.3"
        for r in records
    ]
    (folder / "log" / "ke_history.csv").write_text("\n".join(rows) + "\n")
    if state == "finished":
        rate = config["split"].get("rate", 1.0)
        results = {
            "history": history,
            "networks": {
                "dense": {"val_acc": score, "test_acc": score + 0.02, "operations": 1000, "parameters": 500},
                "slim": {
                    "val_acc": score - 0.01,
                    "test_acc": score + 0.015,
                    "operations": int(1000 * rate**2),
                    "parameters": int(500 * rate**2),
                },
            },
            "monitor": "val_acc",
            "mode": "max",
            "seconds": 90.0,
            "training_operations": 3.0e9,
            "environment": {"python": "3.12.1", "packages": {"torch": "2.9"}},
            "mask": mask_of(rate),
        }
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def write_sweep(root):
    """Two rates of two seeds each, their long baseline, a failed, a running and a broken run."""
    for rate in (0.3, 0.8):
        for seed in (0, 1):
            write_run(root / f"rate{rate}" / f"seed{seed}", rate=rate, seed=seed, score=0.6 + rate / 10 + seed / 100)
    for seed in (0, 1):
        write_run(root / f"long{seed}", count=1, epochs=6, seed=seed, score=0.66 + seed / 100)
    write_run(root / "failed", "failed", error="ValueError: no <b>such</b> </script> thing", rate=0.9, closed=1)
    write_run(root / "running", "running", rate=0.8, seed=2, closed=2)
    broken = write_run(root / "broken", rate=0.95)
    (broken / "results.json").write_text('{"history": [')
    return root
