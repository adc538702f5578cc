"""Dense networks out of checkpoints, which say how they are built."""

import pytest
import torch

from lightning_ke.app.backbones import torchvision_backbone
from lightning_ke.app.trained import trained_backbone

OF = {"_target_": "lightning_ke.app.backbones.torchvision_backbone", "name": "squeezenet1_1", "num_classes": 3}


def written(path, weights, **more):
    state = {f"backbone.{name}": value for name, value in weights.items()}
    torch.save({"state_dict": state, "hyper_parameters": {"config": OF | more}}, path)
    return path


def test_a_network_whose_options_were_left_open_is_built_again(tmp_path):
    weights = torchvision_backbone("squeezenet1_1", 3).state_dict()
    network = trained_backbone(written(tmp_path / "it.ckpt", weights, image_size=None))
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert not network.training


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(ValueError, match="to hold the weights of the network that it describes, but it holds others"):
        trained_backbone(written(tmp_path / "it.ckpt", torch.nn.Linear(2, 2).state_dict()))
