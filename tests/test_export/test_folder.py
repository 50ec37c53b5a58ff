# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from pathlib import Path

import pytest

from mmdet_adasap.export.folder import check_folder, replace_folder


def test_failed_replacement_names_the_old_files(tmp_path, monkeypatch):
    folder = tmp_path / 'slim'
    folder.mkdir()
    (folder / 'model.pth').write_text('first')
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == folder:
            raise OSError(5, 'Input/output error')
        return rename(self, target)

    def export() -> None:
        with replace_folder(folder) as new:
            (new / 'model.pth').write_text('second')

    with monkeypatch.context() as patched:
        patched.setattr(Path, 'rename', failing)
        with pytest.raises(OSError, match=r'--out .*slim is not written whole') as failed:
            export()
    place = Path(str(failed.value).split('what was there before is in ')[1])
    assert (place / 'model.pth').read_text() == 'first'
    assert [p.name for p in tmp_path.iterdir()] == [place.name]


def test_files_of_others_stay(tmp_path):
    folder = tmp_path / 'slim'
    folder.mkdir()
    (folder / 'notes.txt').write_text('mine')
    (folder / 'model.pth').write_text('first')
    with replace_folder(folder) as new:
        (new / 'model.pth').write_text('second')
    assert {p.name: p.read_text() for p in folder.iterdir()} == {
        'model.pth': 'second',
        'notes.txt': 'mine',
    }
    assert [p.name for p in tmp_path.iterdir()] == ['slim']


@pytest.mark.parametrize('name', ['a"b', 'a\\b', 'a\nb', '{{ fileBasename }}'])
def test_names_that_a_config_cannot_hold(tmp_path, name):
    with pytest.raises(ValueError, match=r'^--out .* which a config of mmengine cannot hold'):
        check_folder(tmp_path / name)


def test_below_a_file(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(NotADirectoryError, match=r'^--out .*/file/slim: .*/file is a file'):
        check_folder(tmp_path / 'file' / 'slim')
