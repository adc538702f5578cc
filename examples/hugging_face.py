"""A text classifier of Hugging Face's `transformers`, built from a small configuration and evolved."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForSequenceClassification

import lightning_ke as ke


class Classifier(LightningModule):
    def __init__(self, kind="bert"):
        super().__init__()
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = AutoConfig.for_model(kind, vocab_size=50, num_labels=2, pad_token_id=0, **sizes)
        self.model = AutoModelForSequenceClassification.from_config(config)

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["input_ids"], batch["attention_mask"]), batch["labels"])

    def validation_step(self, batch, batch_idx):
        hits = self(batch["input_ids"], batch["attention_mask"]).argmax(1) == batch["labels"]
        self.log("val_acc", hits.float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


if __name__ == "__main__":
    words = torch.randint(1, 50, (512, 8))
    sentences = [{"input_ids": s, "attention_mask": (s > 0).long(), "labels": (s[0] > 25).long()} for s in words]
    module = Classifier()
    evolution = ke.KnowledgeEvolution(split="kels", rate=0.5, generations=2, reset="initial")
    trainer = Trainer(max_epochs=6, callbacks=[evolution], accelerator="cpu")
    trainer.fit(module, DataLoader(sentences[:384], 32, shuffle=True), DataLoader(sentences[384:], 32))
    trainer.validate(evolution.slim_network(module), DataLoader(sentences[384:], 32))
    ke.save_slim(evolution.slim_network(module), "slim.safetensors", evolution.mask)
    print(ke.load_slim("slim.safetensors", Classifier).model.classifier)
