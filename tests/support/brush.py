"""Label Studio's own coder of brush masks, where the package label-studio-sdk is installed."""

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


def label_studio_brush() -> ModuleType:
    """Load `label_studio_sdk.converter.brush` alone: the package imports pandas, OpenCV and others.

    The test is skipped where it is not installed: `pip install --no-deps label-studio-sdk` is enough.
    """
    try:
        path = Path(str(distribution("label-studio-sdk").locate_file("label_studio_sdk/converter/brush.py")))
    except PackageNotFoundError:
        pytest.skip("label-studio-sdk is not installed")
    spec = spec_from_file_location("label_studio_brush", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
