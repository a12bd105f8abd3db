"""Label Studio's own coder of brush masks."""

from importlib.metadata import distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def label_studio_brush() -> ModuleType:
    """Load `label_studio_sdk.converter.brush` alone: the package imports pandas, OpenCV and others.

    They are not installed with it: see the Makefile.
    """
    path = Path(str(distribution("label-studio-sdk").locate_file("label_studio_sdk/converter/brush.py")))
    spec = spec_from_file_location("label_studio_brush", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
