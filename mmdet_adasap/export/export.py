# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Export a pruned model to a folder that mmdet or mmpretrain loads without this plugin."""

import copy
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS
from torch import nn

from ..checkpoint import load_checkpoint_dict, meta_of, read_checkpoint
from ..errors import ExportMismatchError
from ..integration import build_dense, find_hooks, is_classifier, is_detector, read_config
from ..models import noise_batch, preprocess_batch, raw_forward
from ..pruning import META_KEY, VERSION, check_structure, is_cut, raw_outputs
from ..registry import check_integer
from .comparison import checkpoint_bytes, compare, load_slim_weights
from .config import MODULE, exported_config
from .folder import check_folder, onnx_files, replace_folder
from .onnx import check_onnx, export_onnx

NOTHING_CUT: Mapping = MappingProxyType(
    {'version': VERSION, 'target': {}, 'reached': {}, 'keep': {}, 'attrs': {}}
)
"""What takes the place of a structure for a dense checkpoint."""


def export_pruned(
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path,
    onnx: bool = False,
    force: bool = False,
    rounds: int = 10,
    progress: Callable[[str], None] = lambda line: None,
    dynamic_size: bool = False,
) -> dict:
    """Write a config, its weights and what it imports; mmdet or mmpretrain need no more.

    A dense checkpoint is exported as it is, so that its files can be compared with a slim one's.

    The weights are the ``state_dict`` of the checkpoint. With an EMAHook that is the moving
    average, which ``test.py`` evaluates unless the hook says ``evaluate_on_ema=False``.

    Args:
        config (str | Path | Config): The unpruned config.
        checkpoint (str | Path): The pruned checkpoint, or a dense one.
        out (str | Path): The folder to write.
        onnx (bool): Write ``model.onnx``, too. Defaults to False.
        force (bool): Write into a folder that holds other files, which stay. Defaults to False.
        rounds (int): Timed runs of each model. Defaults to 10.
        progress (Callable): Called with a line when a part begins. Defaults to saying nothing.
        dynamic_size (bool): Leave height and width of ``model.onnx`` free. Defaults to False.

    Returns:
        dict: The report, which is also in ``report.json``.

    Raises:
        ValueError: If the checkpoint is of a model that is masked and not yet cut, or does not
            fit the config, or that builds neither a detector nor a classifier.
        FileNotFoundError: If a file is missing.
        FileExistsError: If the folder holds what no export wrote.
        ImportError: If ``onnx`` is asked for and not installed.
        ExportMismatchError: If what was written does not give the same outputs.
        OnnxMismatchError: If an ONNX file does not.
    """
    if onnx:
        check_onnx()
    elif dynamic_size:
        raise ValueError('--dynamic-size is about the ONNX file; give --onnx (onnx=True), too')
    check_integer('rounds', rounds, 1)
    out = Path(out).resolve()
    check_folder(out, force)
    outdated = [] if onnx else onnx_files(out)
    config = read_config(config)
    found = read_checkpoint(str(checkpoint))
    structure = _cut_structure(found, checkpoint)
    if structure is NOTHING_CUT:
        progress('the checkpoint is dense: nothing is cut, and dense and slim are one model below')
    if any(not hook.get('evaluate_on_ema', True) for hook in find_hooks(config, 'EMAHook')):
        progress(
            'EMAHook(evaluate_on_ema=False): what is exported is the moving average, since '
            'checkpoints have that as state_dict; test.py with this config tests the other weights'
        )
    progress('building the dense and the slim model')
    # Two builds and no deepcopy: load_checkpoint_dict cuts the first one in place.
    slim, dense = _build(config), _build(config)
    _check_exportable(slim, config)
    load_checkpoint_dict(slim, found, str(checkpoint))
    load_slim_weights(dense, slim, structure['keep'])
    text, files, changes = exported_config(config, out.name)
    with replace_folder(out) as folder:
        (folder / 'config.py').write_text(text)
        (folder / 'structure.json').write_text(_structure_json(structure))
        for file in (Path(__file__).with_name(f'{MODULE}.py'), *files):
            shutil.copyfile(file, folder / file.name)
        _save_weights(slim, _dataset_meta(found, config), folder / 'model.pth')
        # From here on everything is done with what was read back, not with what is in memory.
        exported = _load_exported(folder)
        batch = noise_batch(exported.cfg)
        progress('comparing what was written with the pruned model')
        _check_outputs(exported, slim, batch)
        progress(f'timing both, {rounds} rounds of each (minutes for a large detector on a CPU)')
        report = compare(structure, dense, exported, batch, rounds) | {'changes': changes}
        report['bytes'] = {
            'checkpoint': Path(checkpoint).stat().st_size,
            'weights': {
                'dense': checkpoint_bytes(dense),
                'slim': (folder / 'model.pth').stat().st_size,
            },
        }
        if onnx:
            progress('writing and comparing ONNX')
            inputs = preprocess_batch(exported, batch)['inputs']
            report['onnx'] = export_onnx(exported, inputs, folder, dynamic_size)
        (folder / 'report.json').write_text(json.dumps(report, indent=2) + '\n')
    for file in outdated:
        progress(f'removed {file} of the export before, as its weights; --onnx writes a new one')
    return report


def _check_exportable(model: nn.Module, config: Config) -> None:
    """Raise ValueError if a config builds a slim model, or no detector or classifier."""
    if config.model.type == 'SlimModel':
        raise ValueError(
            f'{config.filename} was written by an export and builds a slim model; give the config '
            f'that the model was pruned with'
        )
    if not is_detector(model) and not is_classifier(model):
        raise ValueError(
            f'{config.filename} builds a {type(model).__name__}; only detectors of mmdet and '
            f'classifiers of mmpretrain are exported. mmdet_adasap.apis.load_pruned loads the '
            f'others where the plugin is'
        )


def _cut_structure(checkpoint: Mapping, filename: str | Path) -> Mapping:
    """Return the structure of a checkpoint of a cut model, or of a dense one."""
    structure = meta_of(checkpoint).get(META_KEY)
    if structure is None:
        return NOTHING_CUT
    check_structure(structure)
    if not is_cut(structure):
        raise ValueError(
            f'{filename} was saved in the phase {structure["phase"]!r}, when channels are masked '
            f'at most and not yet cut; export one that was saved after the cut'
        )
    return structure


def _build(config: Config) -> nn.Module:
    """Build the dense model for one process: SyncBN runs on GPUs alone."""
    return revert_sync_batchnorm(build_dense(config)).eval()


def _structure_json(structure: Mapping) -> str:
    """Return what ``slim_model_v1.py`` needs of a structure, and the target, as JSON."""
    kept = {key: structure[key] for key in ('version', 'target', 'reached', 'keep', 'attrs')}
    return json.dumps(kept, separators=(',', ':')) + '\n'


def _save_weights(model: nn.Module, dataset_meta: dict | None, file: Path) -> None:
    """Write a checkpoint with nothing of the plugin in it."""
    meta = {'dataset_meta': dataset_meta} if dataset_meta else {}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, file)


def _dataset_meta(checkpoint: Mapping, config: Config) -> dict | None:
    """Return the classes that the checkpoint was trained for, else those of the config."""
    found = meta_of(checkpoint).get('dataset_meta')
    if not found and 'test_dataloader' in config:
        dataset = copy.deepcopy(config.test_dataloader.dataset)
        found = DATASETS.build(dict(dataset, lazy_init=True)).metainfo
    return {key.lower(): value for key, value in found.items()} if found else None


def _load_exported(folder: Path) -> nn.Module:
    """Build the exported model as mmdet or mmpretrain will."""
    # The config extends sys.path; nothing of that remains, nor a __pycache__ in the folder.
    path, writes = list(sys.path), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        config = Config.fromfile(folder / 'config.py')
    finally:
        sys.path[:], sys.dont_write_bytecode = path, writes
    model = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    weights = torch.load(folder / 'model.pth', map_location='cpu', weights_only=True)
    model.load_state_dict(weights['state_dict'], strict=True)
    model.cfg = config
    return model


def _check_outputs(exported: nn.Module, slim: nn.Module, batch: dict) -> None:
    """Raise ExportMismatchError if the outputs differ in a single bit."""
    forward = raw_forward(preprocess_batch(slim, batch))
    pairs = zip(raw_outputs(exported, forward), raw_outputs(slim, forward), strict=True)
    if not all(torch.equal(a, b) for a, b in pairs):
        raise ExportMismatchError(
            'the exported model does not give what the pruned one gives, so nothing was written; '
            'a module of it depends on more than tensors and channel counts'
        )
