"""The programs of plant.c, started on HAKMEM or without."""
import os
import shutil
import subprocess
import tempfile

from support import LIBRARY, PLAIN, ROOT, Case


class Planted(Case):
    """One compiled program, a folder of its own for what they show."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.plant = os.path.join(cls.folder, "plant")
        subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-pthread",
                        "-fno-builtin", "-o", cls.plant,
                        os.path.join(ROOT, "tests/command/plant.c")],
                       check=True)
        cls.runtime = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.runtime, True)
        cls.env = {"XDG_RUNTIME_DIR": cls.runtime}

    def program(self, words, stdin=None, **env):
        """A process, up."""
        child = subprocess.Popen(
            words, stdin=stdin, stdout=subprocess.PIPE,
            env={**PLAIN, "LD_PRELOAD": LIBRARY, **self.env, **env})
        self.addCleanup(self.stop, child)
        self.assertEqual(child.stdout.readline(), b"up\n")
        return child

    def planted(self, kind, **env):
        """The one of plant.c."""
        return self.program([self.plant, kind], **env)

    @staticmethod
    def stop(child):
        child.kill()
        child.wait()
        child.stdout.close()
