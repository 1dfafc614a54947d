"""A free-threaded build of Python is refused, with the reason."""
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest

from support import Case, python

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
CC = os.environ.get("CC") or "cc"


class FreeThreaded(Case):
    @unittest.skipIf(shutil.which(CC) is None, "there is no compiler")
    @unittest.skipIf(sys.version_info < (3, 13), "there are none before 3.13")
    def test_import_error(self):
        """Our module as it would be compiled there, loaded here."""
        with tempfile.TemporaryDirectory() as place:
            name = "_hakmem" + sysconfig.get_config_var("EXT_SUFFIX")
            subprocess.run(
                [CC, "-std=gnu11", "-D_GNU_SOURCE", "-DPy_GIL_DISABLED=1",
                 "-fPIC", "-shared", "-I", sysconfig.get_path("include"),
                 "-I", str(TOP / "include"), "-I", str(TOP / "core"),
                 str(TOP / "adapters/python/src/hak_py_module.c"),
                 "-o", os.path.join(place, name)], check=True)
            result = python(f"""
                import sys
                sys.path.insert(0, {place!r})
                try:
                    import _hakmem
                    print("was imported")
                except ImportError as error:
                    print(error)
            """)
        self.assertIn("hakmem_py: this is a free-threaded build",
                      result.stdout)


if __name__ == "__main__":
    unittest.main()
