# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Average precision where images count with weights, for many sets of weights at once.

A resample of the images is a row of weights: how often each was drawn. Only positions right after
a true positive matter. False positives between two of them lower the precision and leave the
recall, so they are summed for all rows at once by a sparse product.
"""

from typing import NamedTuple

import numpy as np

CHUNK = 250
"""Rows of weights that are computed together: 1 KB for each image in float32, for the cache."""


class Ranking(NamedTuple):
    """The detections of one class in all N images, best first.

    Attributes:
        image (ndarray): Number of each detection's image, int, (D,), from 0 to N - 1.
        hit (ndarray): Which are true positives, bool, (D,).
        miss (ndarray): Which are false positives, bool, (D,). What is neither is not counted.
        objects (ndarray): Objects of the class in each image, (N,).
    """

    image: np.ndarray
    hit: np.ndarray
    miss: np.ndarray
    objects: np.ndarray


def average_precision(
    ranking: Ranking, weights: np.ndarray, points: np.ndarray | None, dtype: type
) -> tuple[np.ndarray, np.ndarray]:
    """Compute AP of one class for each row of weights.

    Args:
        ranking (Ranking): The class's D detections in N images.
        weights (ndarray): How often each image counts, float32, (R, N).
        points (ndarray, optional): Recalls at which the precision, the highest at that recall or
            a higher one, is averaged: 11 of VOC2007 or 101 of COCO. None: the area under that
            curve, as of VOC2010.
        dtype (type): Of precision and AP: np.float32, as mmdet's eval_map computes, or
            np.float64, as pycocotools does. With it and weights of 1 the result is theirs.

    Returns:
        tuple[ndarray, ndarray]: AP, ``dtype``, (R,), and the number of objects, (R,). AP is 0
        where there are none.
    """
    from scipy.sparse import csr_matrix

    rows = len(weights)
    ap, objects = np.zeros(rows, dtype), np.zeros(rows)
    hits = np.flatnonzero(ranking.hit)
    # False positives behind the last true positive change no precision that counts.
    counted = slice(0, hits[-1] + 1 if len(hits) else 0)
    misses = np.concatenate([[0], np.cumsum(ranking.miss[counted])[hits]]).astype(np.int64)
    at = ranking.image[counted][ranking.miss[counted]]
    # Row k has a 1 for the image of each false positive between true positives k - 1 and k, so
    # its product with the weights is their weighted number.
    between = csr_matrix(
        (np.ones(misses[-1], np.float32), at[: misses[-1]], misses),
        shape=(len(hits), weights.shape[1]),
    )
    for start in range(0, rows, CHUNK):
        part = slice(start, start + CHUNK)
        by_image = np.ascontiguousarray(weights[part].T)
        objects[part] = ranking.objects @ by_image
        if len(hits):
            found = np.cumsum(by_image[ranking.image[hits]], axis=0, dtype=dtype)
            wrong = np.cumsum(between @ by_image, axis=0, dtype=dtype)
            ap[part] = _of_curve(found, wrong, objects[part], points)
    return ap, objects


def _of_curve(
    found: np.ndarray, wrong: np.ndarray, objects: np.ndarray, points: np.ndarray | None
) -> np.ndarray:
    """Return AP of R curves from cumulated true and false positives, (hits, R) each."""
    # As in eval_map. Where a divisor is 0, so is what it divides.
    eps = np.finfo(np.float32).eps
    recall = found / np.maximum(objects, eps)
    precision = found / np.maximum(found + wrong, eps)
    highest = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    if points is None:
        # The recall ends at 1, where the precision is 0.
        zero, one = np.zeros((1, recall.shape[1])), np.ones((1, recall.shape[1]))
        steps = np.diff(np.concatenate([zero, recall, one]), axis=0)
        areas = steps * np.concatenate([highest, zero])
        return np.ascontiguousarray(areas.T).sum(axis=1)
    highest = np.concatenate([highest, np.zeros((1, highest.shape[1]), highest.dtype)])
    ap = np.zeros(recall.shape[1], highest.dtype)
    columns = np.arange(recall.shape[1])
    for first in _first_at(recall, points):
        ap += highest[first, columns]
    ap /= len(points)
    return ap


def _first_at(recall: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return for each point and curve the first row whose recall reaches it, (points, R)."""
    # Few points (VOC's 11) are counted in all curves at once. For many (COCO's 101) each curve is
    # searched.
    if len(points) < 20:
        return np.stack([np.count_nonzero(recall < point, axis=0) for point in points])
    return np.stack([np.searchsorted(column, points, 'left') for column in recall.T], axis=1)


def mean_over_classes(ap: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Compute mAP for each row of weights: the mean over the classes that have objects there.

    Args:
        ap (ndarray): AP of each class, (C, R).
        objects (ndarray): Their numbers of objects, (C, R).

    Returns:
        ndarray: (R,); 0 where no class has objects.
    """
    there = objects > 0
    present = there.any(axis=1)
    if not present.any():
        return np.zeros(ap.shape[1], ap.dtype)
    ap, there = ap[present], there[present]
    # eval_map takes numpy's mean of a list. A contiguous row is summed in the same order, so that
    # the result is equal to the bit; a column would not be.
    whole = np.ascontiguousarray(ap.T).mean(axis=1)
    some = np.where(there, ap, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return np.where(there.all(axis=0), whole, some.astype(ap.dtype))
