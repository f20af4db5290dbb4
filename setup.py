"""Builds the C core twice from the same sources: _core32 (float) and _core64 (double).

Environment switches, for development:
    POWERSTEER_DEBUG=1              no optimisation, debug symbols
    POWERSTEER_SANITIZE=address,undefined   (or thread)
    POWERSTEER_COVERAGE=1           gcov counters
    POWERSTEER_WERROR=1             warnings are errors
    POWERSTEER_FAULTS=1             allocations can be made to fail (csrc/base/alloc.h)
"""

import copy
import os
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from glob import glob

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

if sys.byteorder != "little" or sys.maxsize < 2**32:
    raise SystemExit("powersteer needs a 64-bit, little-endian machine and Python: weights are used as files hold them")


def flag(name):
    return os.environ.get(f"POWERSTEER_{name}", "") not in ("", "0")


def flags():
    """(compile, link) flags. No fast-math: sums keep their order. Contraction to fused multiply-add is allowed, and
    -march is never given: kernels choose their instruction set at run time (csrc/base/cpu.h)."""
    if sys.platform == "win32":
        return ["/O2", "/std:c11", "/experimental:c11atomics"], []
    compile_, link = ["-std=c11", "-D_GNU_SOURCE", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wextra"], ["-lm"]
    compile_ += ["-Wno-psabi"]  # 64-byte vectors never cross a function that is not inlined
    if not flag("COVERAGE"):  # debug information names files from here on, so that two builds anywhere give the same bytes
        places = {"numpy": os.path.dirname(numpy.__file__), "python": sysconfig.get_path("include"), ".": os.getcwd()}
        compile_ += [f"-ffile-prefix-map={place}={name}" for name, place in places.items()]
    if sys.platform.startswith("linux"):
        link += ["-lpthread", "-ldl"]
    sanitizers = os.environ.get("POWERSTEER_SANITIZE")
    if flag("DEBUG"):
        compile_ += ["-O0", "-g3"]
    else:  # instrumented kernels take minutes to compile with -O3
        compile_ += ["-O1" if sanitizers else "-O3", "-g1"]
    if flag("WERROR"):
        compile_ += ["-Werror"]
    if sanitizers:
        compile_ += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
        compile_ += ["-Wno-maybe-uninitialized"]  # GCC, where code is instrumented, sees what is not there
        link += [f"-fsanitize={sanitizers}"]
    if flag("COVERAGE"):
        compile_ += ["--coverage", "-fprofile-update=atomic", "-O0"]
        link += ["--coverage"]
    return compile_, link


class BuildExt(build_ext):
    """Compiles the files of an extension side by side, each extension's objects in a folder of their own: both cores
    are made of the same files, and with `build_ext -j` at the same time."""

    def build_extension(self, ext):
        own = copy.copy(self)
        own.build_temp = os.path.join(self.build_temp, ext.name)
        own.compiler = copy.copy(self.compiler)

        def compile_all(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(lambda source: self.compiler.compile([source], **options), sources))
            return [name for group in objects for name in group]

        own.compiler.compile = compile_all
        build_ext.build_extension(own, ext)


def core(name, *macros):
    compile_args, link_args = flags()
    if flag("FAULTS"):
        macros += (("PS_FAULTS", "1"),)
    return Extension(
        f"powersteer._core.{name}",
        sources=sorted(glob("csrc/*/*.c")),
        depends=sorted(glob("csrc/*/*.h")) + ["setup.py"],
        include_dirs=["csrc", numpy.get_include()],
        define_macros=list(macros),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


setup(ext_modules=[core("_core32"), core("_core64", ("PS_DOUBLE", "1"))], cmdclass={"build_ext": BuildExt})
