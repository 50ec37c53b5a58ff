# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A checkpoint of one stack of packages is read, tested, resumed and exported on the other.

data/travel has one of each stack, whose README.md says how they were made; this is run on both.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmpretrain')

from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain import get_model

from _utils.made_by_0_1_case import raw_of, write_images
from _utils.travel_case import CONFIG, EPOCHS, FILES, config_of, end_of, logits_of
from mmdet_adasap.checkpoint import read_checkpoint
from mmdet_adasap.cli.export_command import main as export_main


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    """A folder with the images of the training."""
    folder = tmp_path_factory.mktemp('travel')
    write_images(folder / 'images')
    return folder


@pytest.mark.parametrize('stack', ['original', 'default'])
class TestTravel:
    @pytest.fixture(autouse=True)
    def here(self, images, stack, monkeypatch):
        monkeypatch.chdir(images)
        self.file = str(FILES / f'{stack}.pth')
        self.made = json.loads((FILES / f'{stack}.json').read_text())

    def test_read(self, stack):
        checkpoint = read_checkpoint(self.file)
        assert checkpoint['meta']['mmdet_adasap']['phase'] == 'finetune'
        lr = checkpoint['message_hub']['log_scalars']['train/lr']
        assert lr.current() == pytest.approx(0.03)
        assert logits_of(self.file) == pytest.approx(self.made['logits'], abs=1e-5)

    def test_tested_by_the_unpruned_config(self, stack):
        cfg = Config.fromfile(CONFIG)
        cfg.merge_from_dict(
            dict(load_from=self.file, work_dir='tested', experiment_name=f'tested {stack}')
        )
        runner = Runner.from_cfg(cfg)
        runner.test()
        (logits,) = raw_of(runner.model.eval())
        assert logits.flatten().tolist() == pytest.approx(self.made['logits'], abs=1e-5)

    def test_resumed_to_the_same_end(self, stack):
        cfg = config_of(f'resumed_{stack}')
        cfg.merge_from_dict(dict(load_from=self.file, resume=True))
        runner = Runner.from_cfg(cfg)
        runner.train()
        assert runner.epoch == EPOCHS
        found, expected = end_of(cfg.work_dir), self.made['end']
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, rel=1e-5, abs=1e-5), name
        (log,) = Path(cfg.work_dir).glob('*/*.log')
        assert 'will not equal' not in log.read_text()

    def test_exported(self, stack, monkeypatch):
        out = f'exported_{stack}'
        arguments = ['export', str(CONFIG), self.file, '--out', out, '--rounds', '1']
        monkeypatch.setattr(sys, 'argv', arguments)
        export_main()
        weights = torch.load(f'{out}/model.pth', weights_only=True)['state_dict']
        assert all(isinstance(tensor, torch.Tensor) for tensor in weights.values())
        model = get_model(f'{out}/config.py', pretrained=f'{out}/model.pth').eval()
        (logits,) = raw_of(model)
        assert logits.flatten().tolist() == pytest.approx(self.made['logits'], abs=1e-5)
