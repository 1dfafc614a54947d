"""The command's modules for white-box tests, from the source tree."""
import importlib
import importlib.util
import os
import sys

from support import BUILD, ROOT

FOLDER = os.path.join(ROOT, "tools", "hakmem")


def load(name):
    """The module hakmem.NAME."""
    if "hakmem" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "hakmem", os.path.join(FOLDER, "__init__.py"),
            submodule_search_locations=[FOLDER])
        package = importlib.util.module_from_spec(spec)
        sys.modules["hakmem"] = package
        spec.loader.exec_module(package)
        package.LIBRARIES = (BUILD,)
    return importlib.import_module(f"hakmem.{name}")
