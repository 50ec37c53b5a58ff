# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What several tests share: models, runs, files, and programs for processes of their own.

None of it is a test. pytest finds it by `pythonpath` in pyproject.toml; a process that a test
starts needs tests/ in its PYTHONPATH.
"""
