"""Builds hakmem_py: the core of HAKMEM and the adapter, one extension module.

In the project's tree the core is in ../../core; a source archive carries it in
core/ beside this file. build.sh makes the archive, and a wheel of it.
"""
import pathlib

from setuptools import Extension, setup
from setuptools.command.install import install
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE if (HERE / "core").is_dir() else HERE.parent.parent
VERSION = (TOP / "VERSION").read_text().strip()

# What a build of the core that does not take malloc's names leaves out.
LEFT_OUT = ("wrap", "hard", "libc_real")

# What an archive needs besides the files that setuptools knows of.
FROM_TOP = ("VERSION", "LICENSE", "include/hakmem.h", "include/*.def",
            "core/*.h", "core/*/*.[ch]", "core/*/*.def", "core/*/*.inc")
FROM_HERE = ("src/*", "*.def")


def relative(path):
    """setuptools wants paths as seen from here."""
    return str(path.relative_to(HERE) if HERE in path.parents
               else pathlib.Path("..", "..", path.relative_to(TOP)))


class SourceArchive(sdist):
    """Carries the core, and nothing from outside under its own path."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(
            base_dir, [name for name in files if not name.startswith("..")])
        for top, patterns in ((TOP, FROM_TOP), (HERE, FROM_HERE)):
            for path in [path for pattern in patterns
                         for path in sorted(top.glob(pattern))]:
                target = pathlib.Path(base_dir, path.relative_to(top))
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    self.copy_file(str(path), str(target))


class Install(install):
    """As it is: Debian's setuptools asks for these on every Python, and only
    Debian's has them."""
    install_layout = None
    prefix_option = None


SOURCES = [path for path in sorted((TOP / "core").glob("*/*.c"))
           if not path.name.startswith(LEFT_OUT)]
SOURCES += sorted((HERE / "src").glob("*.c"))

setup(
    name="hakmem-py",
    version=VERSION,
    description="CPython's objects on the HAKMEM memory allocator",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: Implementation :: CPython",
        "Typing :: Typed",
    ],
    python_requires=">=3.9",
    packages=["hakmem_py"],
    package_data={"hakmem_py": ["py.typed", "*.pyi"]},
    zip_safe=False,
    cmdclass={"sdist": SourceArchive, "install": Install},
    ext_modules=[Extension(
        "hakmem_py._hakmem",
        [relative(path) for path in SOURCES],
        include_dirs=[relative(TOP / "core"), relative(TOP / "include"),
                      "src", "."],
        depends=[relative(path) for path in TOP.glob("core/**/*.[hdi]*")],
        define_macros=[("_GNU_SOURCE", ""),
                       ("HAK_VERSION_STRING", f'"{VERSION}"')],
        # oldest.h: the wheel runs on older systems than this one.
        extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden",
                            "-ftls-model=initial-exec", "-pthread",
                            "-include", "base/oldest.h"],
        extra_link_args=["-pthread", "-Wl,-z,nodelete", "-Wl,--strip-debug",
                         "-Wl,--version-script=src/module.map"],
    )],
)
