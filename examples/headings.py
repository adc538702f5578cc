"""A task beyond classification by the plain callback: by which angle was each image turned?"""

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn
from torch.optim import AdamW

import lightning_ke as ke
from lightning_ke.data import EmbeddedDataModule, HeadingDataModule
from lightning_ke.tasks import Heading


def main(generations: int = 3, epochs: int = 6) -> ke.KnowledgeEvolution:
    seed_everything(0)
    data = HeadingDataModule(EmbeddedDataModule(batch_size=50, flip=False, crop_scale=(1.0, 1.0)))
    network = nn.Sequential(
        *(nn.Conv2d(1, 32, 5, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64 * 25, 2)),  # sine and cosine
    )
    task = Heading(network, optimizer=lambda parameters: AdamW(parameters, lr=2e-3))
    evolution = ke.KnowledgeEvolution(split="kels", rate=0.5, generations=generations)
    trainer = Trainer(max_epochs=generations * epochs, callbacks=[evolution], logger=False, enable_checkpointing=False)
    trainer.fit(task, data)
    for record in evolution.history:
        errors = [f"{record[which]['val_mae']:.0f}" for which in ("dense", "fit")]
        print(f"generation {record['generation']}: dense {errors[0]} degrees, slim {errors[1]} (chance is 90)")
    print(evolution.slim_network(task).predict_angle(torch.zeros(1, 1, 28, 28)))
    return evolution


if __name__ == "__main__":
    main()
