# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What commands need that look at a model without data: the model of a config, and a size."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from ..errors import message_for_user
from .arguments import at_least_1, called_as


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a config."""
    parser.add_argument(
        'config', help='a file, or a name in a package, as mmdet::ssd/ssd300_coco.py'
    )


def add_size_of_table(parser: argparse.ArgumentParser) -> None:
    """Add the option for the image size that a table of latencies is made for."""
    parser.add_argument(
        '--image-size',
        type=at_least_1,
        metavar='PIXELS',
        help='side of a square image, which is that of the table and of all that is pruned by it '
        '(default: what the test pipeline makes)',
    )


@contextlib.contextmanager
def quiet_or_exit(config: str) -> Iterator[None]:
    """Hide what mmengine and mmdet print inside; end with one line if anything is raised there.

    Args:
        config (str): What the user has named, for the line.
    """
    # mmengine's logger is created by these imports and writes to it later, so it stays open.
    nowhere = Path(os.devnull).open('w')  # noqa: SIM115
    with contextlib.redirect_stdout(nowhere):
        warnings.simplefilter('ignore')
        try:
            yield
        except Exception as error:  # a config is a program, and may fail in any way
            sys.exit(f'{called_as()}: {config}: {message_for_user(error)}')


def build_model(name: str) -> tuple:
    """Return a config and its dense model, with random weights.

    Args:
        name (str): A file, or a name in a package, as mmdet::ssd/ssd300_coco.py.
    """
    import torch

    from ..integration import build_dense, read_config, unwrapped

    config = read_config(name)
    model = unwrapped(build_dense(config))
    with torch.no_grad():
        for parameter in model.parameters():
            # SSD's L2Norm holds uninitialised memory until a training begins: a NaN of it, or a
            # sum that overflows, would be reported as a training that has diverged.
            parameter.nan_to_num_(1.0, 1.0, 1.0).clamp_(-1e6, 1e6)
    return config, model


def choose_image(config, model, asked: int | None) -> tuple[tuple[int, int], str]:
    """Return height and width of the image to run on, and where they are from."""
    from ..apis import find_image_size
    from ..integration import image_side
    from ..models import noise_batch, preprocess_batch

    if asked:
        return (asked, asked), '--image-size'
    try:
        inputs = preprocess_batch(model, noise_batch(config))['inputs']
        return tuple(inputs.shape[-2:]), 'height x width, as the test pipeline makes it'
    except Exception:  # there is none, or it needs files or packages that are not here
        side = image_side(config)
    if side:
        return (side, side), 'what the config says of images'
    side = find_image_size(model)
    return (side, side), 'the first size that the model takes; the test pipeline tells none'
