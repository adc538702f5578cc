"""`ke-slim CKPT OUT`: the slim network of a checkpoint, as a file of its own."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Run `ke-slim`.

    Args:
        arguments: What stands on the command line; None for that of this process.
    """
    parser = argparse.ArgumentParser(prog="ke-slim", description="Write the slim network of a checkpoint to a file.")
    parser.add_argument("checkpoint", metavar="CKPT", type=Path, help="written by a Trainer with KnowledgeEvolution")
    parser.add_argument("out", metavar="OUT", type=Path, help="the new file, in the format of safetensors")
    parser.add_argument(
        "--factory",
        metavar="MODULE:FUNCTION",
        help="builds the module whose weights the checkpoint holds; not needed for the group `backbone` of ke-train",
    )
    options = parser.parse_args(arguments)
    if options.checkpoint.is_dir():
        parser.error(
            f"{str(options.checkpoint)!r} is a folder; name a checkpoint, such as DIR/checkpoints/best-fit.ckpt"
        )
    if not options.checkpoint.is_file():
        parser.error(f"there is no checkpoint {str(options.checkpoint)!r}")
    if options.out.suffix == ".onnx":
        parser.error(f"{str(options.out)!r} would hold safetensors; write those, load them and call torch.onnx.export")
    if options.out.exists():
        parser.error(f"{str(options.out)!r} exists; choose another name or remove it")
    if not options.out.absolute().parent.is_dir():
        parser.error(f"there is no folder {str(options.out.absolute().parent)!r} to write to; make it first")

    from lightning_ke.app.slim_file import find_factory, slim_from_checkpoint
    from lightning_ke.slim import SlimError

    try:
        factory = None if options.factory is None else find_factory(options.factory)
        slim = slim_from_checkpoint(options.checkpoint, options.out, factory)
    except (ValueError, OSError, ModuleNotFoundError, SlimError) as error:
        parser.exit(2, f"ke-slim: {error}\n")
    parameters = sum(parameter.numel() for parameter in slim.parameters())
    print(f"Slim network with {parameters:,} parameters written to {options.out}, as safetensors")
    if factory is None:
        where, reader = "lightning_ke.app.slim_file", "load_slim_file"
        print(f'Read it by: from {where} import {reader}; {reader}("{options.out}")')
    else:
        module, _, function = options.factory.partition(":")
        read = f'ke.load_slim("{options.out}", {function})'
        print(f"Read it by: import lightning_ke as ke; from {module} import {function}; {read}")


if __name__ == "__main__":
    main()
