"""A slim network in other hands: read from its file with nothing but the dense network, fine-tuned like any other."""

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn

import lightning_ke as ke
from lightning_ke.data import EmbeddedDataModule


def build():
    first, second = nn.Conv2d(1, 32, 3, stride=2), nn.Conv2d(32, 64, 3, stride=2)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 10))


class Clothes(LightningModule):
    def __init__(self, net, lr):
        super().__init__()
        self.net, self.lr = net, lr

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def main(epochs=2, path="slim.safetensors"):
    seed_everything(0)
    data, evolution = EmbeddedDataModule(), ke.KnowledgeEvolution(ops=0.3, generations=2)
    dense = Clothes(build(), lr=0.05)
    Trainer(max_epochs=2 * epochs, callbacks=[evolution]).fit(dense, data)
    ke.save_slim(evolution.slim_network(dense), path, evolution.mask, part="net")

    # From here on nothing knows of generations: a file, a class, an ordinary Trainer.
    slim, trainer = Clothes(ke.load_slim(path, build), lr=0.01), Trainer(max_epochs=epochs)
    before = trainer.test(slim, data)[0]["test_acc"]
    trainer.fit(slim, data)
    return slim, before, trainer.test(slim, data)[0]["test_acc"]


if __name__ == "__main__":
    slim, before, after = main()
    for network in (build(), slim.net):
        print(ke.measure_cost(network, torch.zeros(1, 1, 28, 28)))
    print(f"test accuracy of the slim network: {before:.3f} as it was read, {after:.3f} after fine-tuning")
