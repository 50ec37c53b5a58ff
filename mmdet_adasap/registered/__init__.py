# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Entries of the package's own registries, which import them when a name is looked up."""
