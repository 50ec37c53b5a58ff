# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import hashlib
import json


def corruption_seed(seed: int, image_id: str | int, corruption: str, severity: int) -> int:
    """Derive the seed of one corrupted image from what names it, and from nothing else.

    Workers, batch size, order and what was corrupted before therefore cannot change a pixel.

    Args:
        seed (int): Seed of the whole benchmark.
        image_id (str | int): Id of the image; 7 and '7' are the same image.
        corruption (str): Name of the corruption.
        severity (int): 1 to 5.

    Returns:
        int: 128 bits of blake2b over the four.
    """
    key = json.dumps([int(seed), str(image_id), corruption, int(severity)])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), 'little')
