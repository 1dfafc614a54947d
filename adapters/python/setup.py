"""Builds hakmem_py: the core of HAKMEM and the adapter, one extension module.

In the project's tree the core is in ../../core; a source archive carries it in
core/ beside this file.
"""
import pathlib

from setuptools import Extension, setup

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE if (HERE / "core").is_dir() else HERE.parent.parent
VERSION = (TOP / "VERSION").read_text().strip()

# What a build of the core that does not take malloc's names leaves out.
LEFT_OUT = ("wrap", "hard", "libc_real")


def relative(path):
    """setuptools wants paths as seen from here."""
    return str(path.relative_to(HERE) if HERE in path.parents
               else pathlib.Path("..", "..", path.relative_to(TOP)))


SOURCES = [path for path in sorted((TOP / "core").glob("*.c"))
           if not path.name.startswith(LEFT_OUT)]
SOURCES += sorted((HERE / "src").glob("*.c"))

setup(
    version=VERSION,
    ext_modules=[Extension(
        "hakmem_py._hakmem",
        [relative(path) for path in SOURCES],
        include_dirs=[relative(TOP / "core"), relative(TOP / "include"),
                      "src"],
        depends=[relative(path) for path in TOP.glob("core/*.[hd]*")],
        define_macros=[("_GNU_SOURCE", ""),
                       ("HAK_VERSION_STRING", f'"{VERSION}"')],
        extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden",
                            "-ftls-model=initial-exec", "-pthread"],
        extra_link_args=["-pthread", "-Wl,-z,nodelete",
                         "-Wl,--version-script=src/module.map"],
    )],
)
