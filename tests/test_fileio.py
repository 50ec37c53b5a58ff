# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import errno
import os
import re

import pytest

from mmdet_adasap.fileio import PARTIAL, remove_partial_files, write_atomically


def partial(folder, name: str = 'epoch_1.pth'):
    return folder / f'.{name}.0123abcd.mmdet_adasap-partial'


class TestWriteAtomically:
    @pytest.mark.parametrize(('data', 'written'), [(b'\0\n', b'\0\n'), ('µ\n', b'\xc2\xb5\n')])
    @pytest.mark.parametrize('there', [None, 'old and longer'])
    def test_data(self, tmp_path, data, written, there):
        file = tmp_path / 'file'
        if there:
            file.write_text(there)
        write_atomically(file, data)
        assert file.read_bytes() == written
        assert os.listdir(tmp_path) == ['file']

    def test_is_on_the_disk_before_it_has_the_name(self, tmp_path, monkeypatch):
        done = []
        fsync, replace = os.fsync, os.replace

        def synced(number):
            done.append('folder' if os.path.isdir(f'/proc/self/fd/{number}') else 'file')
            fsync(number)

        def renamed(source, target):
            assert PARTIAL.fullmatch(source.name)
            assert source.read_text() == 'new'
            done.append('rename')
            replace(source, target)

        monkeypatch.setattr(os, 'fsync', synced)
        monkeypatch.setattr(os, 'replace', renamed)
        write_atomically(tmp_path / 'file', 'new')
        assert done == ['file', 'rename', 'folder']

    def test_link_stays_a_link(self, tmp_path):
        (tmp_path / 'elsewhere').mkdir()
        (tmp_path / 'link').symlink_to('elsewhere/file')
        write_atomically(tmp_path / 'link', 'new')
        assert (tmp_path / 'link').is_symlink()
        assert (tmp_path / 'elsewhere' / 'file').read_text() == 'new'

    def test_pipe_is_written_to(self, tmp_path):
        os.mkfifo(tmp_path / 'pipe')
        reader = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
        write_atomically(tmp_path / 'pipe', 'new')
        assert os.read(reader, 10) == b'new'
        os.close(reader)
        assert (tmp_path / 'pipe').is_fifo()

    def test_name_of_255_bytes(self, tmp_path):
        file = tmp_path / ('ä' * 127 + 'a')
        write_atomically(file, 'new')
        assert file.read_text() == 'new'

    def test_permissions_are_those_of_any_new_file(self, tmp_path):
        write_atomically(tmp_path / 'ours', 'new')
        (tmp_path / 'plain').write_text('new')
        assert (tmp_path / 'ours').stat().st_mode == (tmp_path / 'plain').stat().st_mode

    @pytest.mark.parametrize('operation', ['fsync', 'replace'])
    def test_full_disk(self, tmp_path, monkeypatch, operation):
        def full(*_):
            raise OSError(errno.ENOSPC, 'No space left on device')

        (tmp_path / 'file').write_text('old')
        monkeypatch.setattr(os, operation, full)
        message = re.escape(f'{tmp_path}/file is not written (No space left on device); what was')
        with pytest.raises(OSError, match=rf'{message}.*make room') as error:
            write_atomically(tmp_path / 'file', 'new')
        assert error.value.errno == errno.ENOSPC
        assert (tmp_path / 'file').read_text() == 'old'
        assert os.listdir(tmp_path) == ['file']

    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='is not written'):
            write_atomically(tmp_path / 'missing' / 'file', 'new')

    def test_interrupt_leaves_nothing(self, tmp_path, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, 'fsync', interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(tmp_path / 'file', 'new')
        assert not os.listdir(tmp_path)


class TestRemovePartialFiles:
    def test_only_ours_are_removed(self, tmp_path):
        partial(tmp_path).write_text('half')
        others = [
            tmp_path / 'epoch_1.pth',
            tmp_path / '.epoch_1.pth.swp',
            tmp_path / '.epoch_1.pth.partial',
            tmp_path / '.epoch_1.pth.mmdet_adasap-partial',
            tmp_path / 'epoch_1.pth.0123abcd.mmdet_adasap-partial',
            partial(tmp_path / 'below'),
        ]
        (tmp_path / 'below').mkdir()
        for file in others:
            file.touch()
        assert remove_partial_files(tmp_path) == [partial(tmp_path)]
        assert not partial(tmp_path).exists()
        assert all(file.exists() for file in others)

    def test_what_is_being_written_stays(self, tmp_path, monkeypatch):
        """Another run in the same folder, that is."""
        fsync, found = os.fsync, []

        def look(number):
            if not found:
                found.append((len(list(tmp_path.glob('.*'))), remove_partial_files(tmp_path)))
            fsync(number)

        monkeypatch.setattr(os, 'fsync', look)
        write_atomically(tmp_path / 'file', 'new')
        assert found == [(1, [])]
        assert (tmp_path / 'file').read_text() == 'new'

    def test_missing_folder(self, tmp_path):
        assert remove_partial_files(tmp_path / 'missing') == []
