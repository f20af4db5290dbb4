"""What the core's modules give to Python: types that are collected, signatures, names, shared constants."""

from __future__ import annotations

import ast
import gc
import inspect
import weakref
from pathlib import Path

import numpy as np
import pytest
from random_models import random_model

import powersteer._core
from powersteer._core import _core32, _core64
from powersteer.inputs.sites import SITES

STUBS = Path(powersteer._core.__file__).parent
TYPES = ("Model", "Jacobian", "Decoder", "KrylovRuns")
both_cores = pytest.mark.parametrize("core", [_core32, _core64])


class Owned(np.ndarray):
    """An array that can hold a reference to anything."""


def owned(array):
    return array.view(Owned)


def make(core):
    """One object of each type, and the arrays that each keeps."""
    real = np.float64 if core is _core64 else np.float32
    twin = random_model(real=real)
    up = twin.layers[0]["up"] = owned(np.array(twin.layers[0]["up"], real))
    model = core.Model(twin.spec, twin.layers, twin.top, 2)
    prompt, at, vector = owned(np.array([1, 2], np.int32)), np.array([1], np.int32), owned(np.ones(12, real))
    steer = [(0, 4, vector, -1, np.array([[0, 2]], np.int32))]
    J = core.Jacobian(model, [prompt], steer, (0, 4), (1, 4), [at], [at], False)
    decoder = core.Decoder(model, [prompt], np.array([9], np.int32), steer, 0.0, 0, 1.0, np.zeros(1, np.uint64))
    runs = core.KrylovRuns([(3, 2, 1, 1, 100, 2)], 1e-3, 0, 2)
    return {"Model": (model, [up]), "Jacobian": (J, [up]), "Decoder": (decoder, [up, prompt, vector]), "KrylovRuns": (runs, [])}


@both_cores
@pytest.mark.parametrize("kind", TYPES)
def test_a_cycle_through_an_object_is_collected(core, kind):
    for i in range(len(make(core)[kind][1])):
        held = make(core)[kind]
        owner, array = held[0], held[1][i]
        assert gc.is_tracked(owner)
        array.owner = owner  # the object keeps the array, directly or through its model
        gone = weakref.ref(array)
        del held, owner, array
        assert gone() is not None
        gc.collect()
        assert gone() is None, (kind, i)


@both_cores
def test_a_cycle_through_a_history_is_collected(core):
    runs = core.KrylovRuns([(1, 1, 1, 1, 100, 1)], 1e-3, 0, 1)
    while requests := runs.requests():
        runs.supply([(i, X) for i, _, X in requests])
    history = runs.result(0)["history"]
    history.append(owned(np.zeros(1)))
    history[-1].owner = runs
    gone = weakref.ref(history[-1])
    assert gc.is_tracked(runs)
    del runs, history
    gc.collect()
    assert gone() is None


@both_cores
@pytest.mark.parametrize("kind", TYPES)
def test_an_object_without_a_cycle_goes_at_once(core, kind):
    gc.disable()
    try:
        owner, arrays = make(core)[kind]
        gone = [weakref.ref(array) for array in arrays]
        del owner, arrays
        assert all(one() is None for one in gone)
    finally:
        gc.enable()


@both_cores
def test_collection_spares_what_is_in_use(core):
    objects = make(core)
    J, decoder = objects["Jacobian"][0], objects["Decoder"][0]
    before = J.apply(np.eye(12, dtype=J.base.dtype))
    del objects
    gc.collect()
    assert np.array_equal(J.apply(np.eye(12, dtype=J.base.dtype)), before)
    assert decoder.step().shape == (1,)


class Looking(list):
    """A list that looks, whenever it is read, for objects of a type that the collector knows."""

    def __getitem__(self, i):
        self.seen = [x for x in gc.get_objects() if type(x) is self.kind]
        return super().__getitem__(i)


@both_cores
@pytest.mark.parametrize("kind", TYPES)
def test_every_object_refers_to_its_type(core, kind):
    owner = make(core)[kind][0]
    assert type(owner) in gc.get_referents(owner)


@both_cores
def test_a_half_built_object_is_not_seen(core):
    model = make(core)["Model"][0]
    at = [np.array([0], np.int32)]
    for kind, rest in [("Jacobian", ([], (0, 4), (1, 4), at, at, False)),
                       ("Decoder", (np.array([9], np.int32), [], 0.0, 0, 1.0, np.zeros(1, np.uint64)))]:  # fmt: skip
        prompts = Looking(at)
        prompts.kind = getattr(core, kind)
        owner = prompts.kind(model, prompts, *rest)
        assert prompts.seen == [] and gc.is_tracked(owner)


def stub_functions():
    """Qualified name -> argument names, of everything in the stub that can be called; of a class its __init__."""
    tree = ast.parse((STUBS / "_core32.pyi").read_text())
    for node in tree.body:
        inside = [(f"{node.name}.", one) for one in node.body] if isinstance(node, ast.ClassDef) else [("", node)]
        for prefix, one in inside:
            if isinstance(one, ast.FunctionDef) and not any(getattr(d, "id", "") == "property" for d in one.decorator_list):
                args = one.args
                yield prefix + one.name, [a.arg for a in args.posonlyargs], [a.arg for a in args.args], len(args.defaults)


@both_cores
@pytest.mark.parametrize("stub", list(stub_functions()), ids=lambda stub: stub[0])
def test_signatures_are_those_of_the_stub(core, stub):
    name, positional, rest, n_defaults = stub
    there = core
    for part in name.removesuffix(".__init__").split("."):
        there = getattr(there, part)
    got = inspect.signature(there).parameters.values()
    bound = {"self", "cls"}
    assert [p.name for p in got if p.kind is p.POSITIONAL_ONLY and p.name not in bound] == [n for n in positional if n not in bound]
    assert [p.name for p in got if p.kind is p.POSITIONAL_OR_KEYWORD] == [n for n in rest if n not in bound]
    assert sum(p.default is not p.empty for p in got) == n_defaults
    assert there.__doc__.endswith((".", ".)"))


@both_cores
def test_names_and_docstrings(core):
    name = core.__name__
    for kind in TYPES:
        cls = getattr(core, kind)
        assert f"{cls.__module__}.{cls.__qualname__}" == f"{name}.{kind}"
        for member, value in vars(cls).items():
            if not member.startswith("__"):
                assert value.__doc__ and value.__doc__[0].isupper() and value.__doc__.endswith("."), (kind, member)
    public = {n for n in dir(core) if not n.startswith("__")} - {"fail_allocation"}
    stub = ast.parse((STUBS / "_core32.pyi").read_text())
    named = {n.target.id for n in stub.body if isinstance(n, ast.AnnAssign)}
    named |= {n.name for n in stub.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")}
    assert public == named
    again = ast.parse((STUBS / "_core64.pyi").read_text())
    assert public == {alias.asname for n in again.body if isinstance(n, ast.ImportFrom) for alias in n.names}


@both_cores
def test_constants_are_those_of_the_package(core):
    assert core.SITES == SITES
    assert core.real_size == (8 if core is _core64 else 4)
    twin = random_model(real=np.float64 if core is _core64 else np.float32)
    for threads in (0, core.MAX_THREADS + 1):
        with pytest.raises(powersteer.PowersteerError, match=f"between 1 and {core.MAX_THREADS}, got {threads}"):
            core.Model(twin.spec, twin.layers, twin.top, threads)
    assert core.Model(twin.spec, twin.layers, twin.top, core.MAX_THREADS).threads == core.MAX_THREADS
