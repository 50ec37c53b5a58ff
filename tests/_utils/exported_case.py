# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Exported models where mmdet_adasap cannot be imported, in a process of its own.

python exported_case.py find IMAGE OUT FOLDER...   boxes by init_detector and DetInferencer
python exported_case.py tools FILE ARGUMENT... then FILE ARGUMENT...   mmdet's train.py, test.py
"""

import copy
import importlib.abc
import pickle
import runpy
import sys

import torch


class Blocker(importlib.abc.MetaPathFinder):
    """Makes a package that is installed look as if it were not."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition('.')[0] == 'mmdet_adasap':
            raise ModuleNotFoundError(f'No module named {name!r} (blocked)')


def find(image: str, out: str, folders: list[str]) -> None:
    from mmdet.apis import DetInferencer, inference_detector, init_detector

    # All are built before any is run: one must not disturb another.
    models = [init_detector(f'{f}/config.py', f'{f}/model.pth', device='cpu') for f in folders]
    found = []
    for folder, model in zip(folders, models, strict=True):
        inferencer = DetInferencer(
            model=f'{folder}/config.py',
            weights=f'{folder}/model.pth',
            device='cpu',
            show_progress=False,
        )
        again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
        found.append(
            {
                'classes': model.dataset_meta['classes'],
                'boxes': boxes(inference_detector(model, image)),
                'copied': boxes(inference_detector(again, image)),
                'inferencer': boxes(
                    inferencer(image, return_datasamples=True, no_save_vis=True)['predictions'][0]
                ),
            }
        )
    torch.save(found, out)


def boxes(sample: object) -> dict[str, torch.Tensor]:
    instances = sample.pred_instances
    return {key: instances[key] for key in ('bboxes', 'scores', 'labels')}


if __name__ == '__main__':
    torch.set_num_threads(1)
    sys.meta_path.insert(0, Blocker())
    task, *arguments = sys.argv[1:]
    if task == 'find':
        find(arguments[0], arguments[1], arguments[2:])
    while task == 'tools' and arguments:
        stop = [*arguments, 'then'].index('then')
        sys.argv, arguments = arguments[:stop], arguments[stop + 1 :]
        runpy.run_path(sys.argv[0], run_name='__main__')
    assert not [name for name in sys.modules if name.startswith('mmdet_adasap')]
