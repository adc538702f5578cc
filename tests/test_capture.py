"""What is learnt from a network's first real call."""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch.strategies.strategy import _ForwardRedirection
from torch import Tensor, nn

from lightning_ke.capture import CallRecorder
from tests.callback.modules import Classifier


class Wrapper(nn.Module):
    """Calls a module as DDP does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any) -> Any:
        return self.module(*args)


def test_a_step_that_ddp_calls_in_the_place_of_the_forward_is_no_call_of_the_network() -> None:
    module = Classifier()
    module.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no Trainer
    images, labels = torch.zeros(2, 3, 6, 6), torch.tensor([0, 1])
    for _ in range(2):  # the second time Lightning has left a `forward` on the instance
        recorder = CallRecorder(module)
        _ForwardRedirection()(Wrapper(module), module, "training_step", (images, labels), 0)
        [call] = recorder.close()
        assert call.module == ""
        assert len(call.args) == 1
        assert torch.equal(call.args[0], images)


def test_a_step_that_fails_leaves_the_recorder_as_it_was() -> None:
    class Fails(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise RuntimeError("no such loss")

    module = Fails()
    recorder = CallRecorder(module)
    try:
        _ForwardRedirection()(Wrapper(module), module, "training_step", None, 0)
    except RuntimeError:
        module(torch.zeros(2, 3, 6, 6))
    [call] = recorder.close()
    assert call.args[0].shape == (2, 3, 6, 6)


def test_a_copy_of_a_module_that_is_listened_to_does_not_copy_what_hangs_onto_the_module() -> None:
    class Uncopyable:
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("cannot be copied")

        def __call__(self, *_: Any) -> None:
            """Hook."""

    module = Classifier()
    recorder = CallRecorder(module)
    hooks = dict(module._forward_pre_hooks)
    handle = module.register_forward_pre_hook(Uncopyable())
    whole = module.__dict__["_forward_pre_hooks"]
    module.__dict__["_forward_pre_hooks"] = type(whole)(hooks)  # as FSDP2's hooks are set aside
    copy.deepcopy(module)
    module.__dict__["_forward_pre_hooks"] = whole
    handle.remove()
    module(torch.zeros(2, 3, 6, 6))
    assert len(recorder.close()) == 1


def test_what_runs_inside_of_a_transform_is_not_recorded() -> None:
    module = Classifier().eval()
    images = torch.zeros(2, 3, 6, 6)
    recorder = CallRecorder(module)
    torch.func.vmap(lambda image: module(image[None]))(images)
    assert not recorder.calls
    module(images)
    [call] = recorder.close()
    assert torch.equal(call.args[0], images)
