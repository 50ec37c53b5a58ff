# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, OPTIM_WRAPPERS, DefaultScope

mmdet = pytest.importorskip('mmdet')

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))


def without_files(model: object) -> object:
    """Settings of a model that starts from random weights."""
    if isinstance(model, dict):
        return {k: without_files(v) for k, v in model.items() if k != 'init_cfg'}
    return type(model)(map(without_files, model)) if isinstance(model, list | tuple) else model


@pytest.mark.parametrize('path', CONFIGS, ids=[str(p.relative_to(ROOT)) for p in CONFIGS])
class TestConfigs:
    def test_model_and_method_build(self, path):
        from mmdet.registry import MODELS

        cfg = Config.fromfile(path)
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(without_files(cfg.model.to_dict()))
        assert OPTIM_WRAPPERS.get(cfg.optim_wrapper.type) is not None
        hook = cfg.default_hooks.get('adasap')
        if hook is None:
            assert not path.name.startswith(('adasap', 'control'))
            return
        hook = HOOKS.build(hook)
        assert hook.warmup + hook.prune < cfg.train_cfg.max_epochs
        for perturbation in (hook.perturbation, hook.finetune):
            assert (perturbation is None) == path.name.startswith('control')
            if perturbation is not None:
                perturbation.attach(model)

    def test_learning_rate_is_lowered_behind_the_cut(self, path):
        """The slim model is to recover at a high rate: milestones later, cosines not half down."""
        cfg = Config.fromfile(path)
        hook = cfg.default_hooks.get('adasap')
        if hook is None:
            return
        done = hook.warmup + hook.prune
        lowering = [s for s in cfg.param_scheduler if s.get('milestones') or 'T_max' in s]
        assert lowering
        for scheduler in lowering:
            for milestone in scheduler.get('milestones', ()):
                assert milestone >= done
            if 'T_max' in scheduler:
                assert done < scheduler['begin'] + scheduler['T_max'] / 2


def test_readme_shows_the_config_that_is_shipped():
    """The example in the README and configs/adasap_ssd300_voc0712.py say the same."""
    readme = (ROOT / 'README.md').read_text()
    code = readme.split("```python\n_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'")[1]
    code = "_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'" + code.split('```')[0]
    shown = Config.fromstring(code, '.py')
    shipped = Config.fromfile(ROOT / 'configs' / 'adasap_ssd300_voc0712.py')
    for key in ('custom_imports', 'load_from', 'optim_wrapper', 'default_hooks'):
        assert shown[key] == shipped[key]


def test_readme_is_whole():
    """No placeholder is left, and every file that it links to is there."""
    readme = (ROOT / 'README.md').read_text()
    assert '<!--' not in readme
    links = re.findall(r'\]\(([^)#:]+)\)', readme)
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link
