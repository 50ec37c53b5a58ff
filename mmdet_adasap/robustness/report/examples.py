# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Example images for a page, and which predictions in them are right."""

import base64
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..datasets import ImageCorruption, read_image
from ..store import example_file
from .cells import CellFiles
from .schema import Boxes, ClassPrediction, Example, ModelResults, Results, UnreadableImage

MAX_SIDE = 480
"""Pixels of the longer side of a detector's image in the page, at most: it is shown about 300
wide, and screens may have two pixels for one."""
JPEG_QUALITY = 85
"""Keeps artifacts well below those of the jpeg_compression corruption (25 at severity 1)."""
MIN_SCORE = 0.3
"""Boxes with a lower score are not shown, as in MMDetection's DetVisualizationHook."""
MIN_IOU = 0.5
"""From this IoU on a box is on an object, as in PASCAL VOC."""


class MatchedBoxes(NamedTuple):
    """The boxes of a detector that are shown, matched with the ground truth.

    Attributes:
        boxes (Boxes): Those with a score of at least ``MIN_SCORE``, best first.
        right (tuple[bool, ...]): Whether each is on an object of its class that no better one is
            on.
    """

    boxes: Boxes
    right: tuple[bool, ...]


class MatchedClass(NamedTuple):
    """The class that a classifier gave an image.

    Attributes:
        prediction (ClassPrediction): The class.
        right (tuple[bool]): Whether the metric counts it; one entry, so that the objects of an
            image are counted alike for both kinds of models.
    """

    prediction: ClassPrediction
    right: tuple[bool]


def match(
    prediction: Boxes | ClassPrediction, truth: Boxes | ClassPrediction
) -> MatchedBoxes | MatchedClass:
    """Match a prediction with the ground truth; both are boxes, or both a class.

    It is for showing examples; no number of a report depends on it.
    """
    if isinstance(prediction, Boxes):
        return match_boxes(prediction, truth)
    return MatchedClass(prediction, (prediction.right,))


def match_boxes(boxes: Boxes, truth: Boxes) -> MatchedBoxes:
    """Select the boxes to show, and match them greedily, the best score first."""
    order = np.argsort([-score for score in boxes.scores], kind='stable')
    shown = [int(i) for i in order if boxes.scores[i] >= MIN_SCORE]
    taken: set[int] = set()
    right = []
    for i in shown:
        ious = {
            j: iou(boxes.bboxes[i], truth.bboxes[j])
            for j in range(len(truth.labels))
            if j not in taken and truth.labels[j] == boxes.labels[i]
        }
        best = max(ious, key=lambda j: ious[j], default=None)
        hit = best is not None and ious[best] >= MIN_IOU
        right.append(hit)
        if hit:
            taken.add(best)
    selected = Boxes(*(tuple(values[i] for i in shown) for values in boxes))
    return MatchedBoxes(selected, tuple(right))


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection over union of two boxes (x1, y1, x2, y2)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other)]
    return shared / (sum(areas) - shared) if shared else 0.0


class ExampleImage(NamedTuple):
    """An image for a page.

    Attributes:
        name (str): Its id within the page.
        width (int): Width of the original in pixels, which boxes refer to.
        height (int): Height of the same.
        jpeg (bytes): The image as a JPEG file; of a large one a smaller copy.
    """

    name: str
    width: int
    height: int
    jpeg: bytes

    @property
    def uri(self) -> str:
        """The image as a data: URI, which needs no network."""
        return f'data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}'


class ExampleImages:
    """The images of the examples under the conditions that are asked for.

    Of detectors, the files are corrupted again as the run did it; of classifiers, the run kept
    copies of what they saw.

    Args:
        results (Results): The examples, and the seed of the corruptions.
        files (CellFiles): The cells, whose folders the copies are beside.

    Attributes:
        loaded (dict[tuple, ExampleImage]): The images that were asked for.
        unreadable (dict[int, UnreadableImage]): Examples that cannot be read, by number.
    """

    def __init__(self, results: Results, files: CellFiles) -> None:
        self.results, self.files = results, files
        self.loaded: dict[tuple, ExampleImage] = {}
        self.unreadable: dict[int, UnreadableImage] = {}
        # An image is read once for all corruptions of it.
        self._read = cache(_read_original)

    def get(
        self, model: ModelResults, example: Example, corruption: str, severity: int
    ) -> ExampleImage | None:
        """Return an example under a condition.

        Args:
            model (ModelResults): The model that saw it.
            example (Example): The example.
            corruption (str): The corruption, 'none' for clean.
            severity (int): The severity, 0 for clean.

        Returns:
            ExampleImage | None: None if it cannot be read; then it is in ``unreadable``.
        """
        is_class = isinstance(example.truth, ClassPrediction)
        key = (example.number, corruption, severity)
        if is_class:
            folder = self.files.locations[model.name].folder.parent
            key = (example_file(folder, corruption, severity, example.number, model.view),)
        if key not in self.loaded:
            try:
                self.loaded[key] = (
                    _read_copy(*key) if is_class else self._corrupt(example, corruption, severity)
                )
            # ValueError, TypeError, cv2.error: results.json may name any file, and corruptions
            # of another version. A report without a picture is better than none.
            except (OSError, ValueError, TypeError, cv2.error) as error:
                reason = ' '.join(str(error).split()) or type(error).__name__
                name = example.img_path or str(example.img_id)
                self.unreadable[example.number] = UnreadableImage(name, reason)
                return None
        return self.loaded[key]

    def _corrupt(self, example: Example, corruption: str, severity: int) -> ExampleImage:
        image = self._read(example)
        height, width = image.shape[:2]
        transform = ImageCorruption(
            corruption, severity, self.results.seed, mode=self.results.protocol['mode']
        )
        info = {'img': image, 'img_id': example.img_id, 'img_path': example.img_path}
        name = f'example-{example.number}-{corruption}-{severity}'
        return ExampleImage(name, width, height, _encode_jpeg(transform(info)['img']))


def _read_original(example: Example) -> np.ndarray:
    """Read an image as LoadImageFromFile does: (H, W, 3), BGR, uint8."""
    path = Path(example.img_path or '')
    # Only regular files: reading a pipe or a device, which may be named as well, need not end.
    if example.img_path is None or '\0' in example.img_path or not path.is_file():
        raise FileNotFoundError('it is not there')
    image = read_image(path)
    if image is None:
        raise ValueError('it is no image')
    return image


def _read_copy(file: Path) -> ExampleImage:
    """Read the copy that a run kept of what classifiers saw."""
    if not file.is_file():
        raise FileNotFoundError(f'examples/{file.name} is not there')
    image = read_image(file)
    if image is None:
        raise ValueError(f'examples/{file.name} is no image')
    data = file.read_bytes()
    height, width = image.shape[:2]
    # Named after its bytes: in a comparison, files of several runs have the same name, and
    # equal images are stored in the page once.
    return ExampleImage(f'example-{sha256(data).hexdigest()[:16]}', width, height, data)


def _encode_jpeg(image: np.ndarray) -> bytes:
    ratio = MAX_SIDE / max(image.shape[:2])
    if ratio < 1:
        size = [max(round(side * ratio), 1) for side in image.shape[1::-1]]
        # INTER_AREA averages; others would turn noise into other noise.
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()
