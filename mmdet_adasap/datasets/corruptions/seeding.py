# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import hashlib
import json


def corruption_seed(
    seed: int, image_id: str | int, corruption: str, severity: int, mode: str = 'fast'
) -> int:
    """Derive the seed of one corrupted image from what names it, and from nothing else.

    Workers, batch size, order and what was corrupted before therefore cannot change a pixel.

    Args:
        seed (int): Seed of the whole benchmark.
        image_id (str | int): Id of the image; 7 and '7' are the same image.
        corruption (str): Name of the corruption.
        severity (int): 1 to 5.
        mode (str): What the seed is for, 'fast' or 'exact'. Defaults to 'fast'.

    Returns:
        int: 128 bits of blake2b over the first four; 32 of them for a RandomState, which takes no
        more.
    """
    key = json.dumps([int(seed), str(image_id), corruption, int(severity)])
    size = 4 if mode == 'exact' else 16
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=size).digest(), 'little')
