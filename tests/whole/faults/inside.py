"""Breaks the product from inside: code that each of its processes runs as Python starts (`sitecustomize`).

`patched(folder, module, code)` is an environment in which `code` runs as soon as `module` was imported, with it as `m`.
For what cannot be done from outside: memory that the network does not get, a wall clock that is set back.
"""

import os
from pathlib import Path

SITE = """
import importlib.abc, importlib.machinery, sys


class Patch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(m):
            load(m)
            exec({code!r}, {{"m": m}})

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Patch())
"""


def patched(folder: Path, module: str, code: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITE.format(module=module, code=code))
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), before]))}
