# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Environments that are not installed: what pip leaves of them, or what env is told of them."""

from importlib import metadata
from pathlib import Path

from mmdet_adasap import distributions
from mmdet_adasap.distributions import FORKS, ORIGINALS, OTHERS
from mmdet_adasap.env import command, inspection
from mmdet_adasap.env.import_trial import ImportResults

ONEDL = {
    'torch': '2.11.0',
    'torchvision': '0.26.0',
    'numpy': '2.2.6',
    'opencv-python-headless': '4.12.0.88',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmpretrain': '1.3.6',
}
ORIGINAL = {
    'torch': '2.1.2',
    'torchvision': '0.16.2',
    'numpy': '1.26.4',
    'opencv-python-headless': '4.11.0.86',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmpretrain': '1.2.0',
}
ASKED_FOR = ['pycocotools', "instaboostfast; extra == 'all'", 'scikit_learn (>=1)']
"""What each of them asks pip for."""


def install_fake(folder: Path, name: str, version: str, files: tuple[str, ...] = ()) -> None:
    """Lay down what pip leaves of a distribution, in a folder that is on the path."""
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    (info / 'RECORD').write_text('\n'.join(files))


def pretend(monkeypatch, versions: dict[str, str], absent=(), **errors: str) -> None:
    """Let env believe that these distributions are installed, and no others.

    Args:
        monkeypatch (pytest.MonkeyPatch): Of the test.
        versions (dict[str, str]): Versions of distributions.
        absent (Collection[str]): Modules beside those that are not installed either; of these
            ``pkg_resources`` is known.
        **errors (str): What the import of a module raises, with ``__`` for a dot. Other modules
            of what is installed can be imported.
    """
    errors = {name.replace('__', '.'): text for name, text in errors.items()}
    every = {n: (*FORKS.get(n, ()), *ORIGINALS.get(n, ())) for n in FORKS} | OTHERS
    there = {name for name, dists in every.items() if set(dists) & versions.keys()}
    there |= {'mmdet_adasap'} if 'pkg_resources' in absent else {'mmdet_adasap', 'pkg_resources'}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    def requires(name: str) -> list[str]:
        return ASKED_FOR if name in versions else []

    def find_spec(name: str) -> object:
        return object() if name in there else None

    def try_imports(names: list[str]) -> ImportResults:
        assert not {name.partition('.')[0] for name in names} - there
        cuda = '' if errors.get('mmcv._ext') else 'not available'
        return ImportResults({name: errors.get(name, '') for name in names}, mmcv_cuda=cuda)

    monkeypatch.setattr(distributions.metadata, 'version', version)
    monkeypatch.setattr(distributions.metadata, 'requires', requires)
    for module in (inspection, command):
        monkeypatch.setattr(module, 'find_spec', find_spec)
    monkeypatch.setattr(inspection, 'try_imports', try_imports)
