# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the package itself puts into its registries; they import it when a name is looked up."""
