# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from importlib import metadata
from pathlib import Path

import pytest

from mmdet_adasap import distributions


@pytest.fixture
def only(monkeypatch):
    """Pretend that these distributions are installed and no others."""

    def only(versions: dict[str, str]) -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(distributions.metadata, 'version', version)

    return only


def test_installed_keeps_the_order_given(only):
    only({'b': '2', 'a': '1'})
    assert list(distributions.installed(('a', 'c', 'b')).items()) == [('a', '1'), ('b', '2')]


class TestOpenMMLabVersions:
    def test_forks_and_originals_have_import_names(self, only):
        only({'onedl-mmdetection': '3.5.1', 'onedl-mmcv': '2.3.6', 'mmengine': '0.10.7'})
        versions = {'mmengine': '0.10.7', 'mmcv': '2.3.6', 'mmdet': '3.5.1'}
        assert list(distributions.openmmlab_versions().items()) == list(versions.items())

    def test_a_fork_comes_before_the_original(self, only):
        only({'mmcv': '2.1.0', 'onedl-mmcv': '2.3.6'})
        assert distributions.openmmlab_versions() == {'mmcv': '2.3.6'}

    def test_lite_packages_are_left_out(self, only):
        only({'mmcv-lite': '2.1.0', 'mmengine-lite': '0.10.7'})
        assert distributions.openmmlab_versions() == {}


def test_package_folder(tmp_path, monkeypatch):
    (tmp_path / 'folder_of_this').mkdir()
    (tmp_path / 'folder_of_this' / '__init__.py').write_text('raise ImportError')
    (tmp_path / 'single_module.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert distributions.package_folder('folder_of_this') == tmp_path / 'folder_of_this'
    assert distributions.package_folder('single_module') is None
    assert distributions.package_folder('missing_package') is None
    assert distributions.package_folder('mmdet_adasap') == Path(distributions.__file__).parent
