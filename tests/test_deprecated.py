"""What the previous release accepted: modules that have moved, names, and arguments that are now keyword-only or renamed."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import warnings

import pytest

import powersteer as ps
from powersteer._util.deprecated import FOLDERS, MOVED, deprecated_arguments

# Import paths of the previous release, with names that its users import from there.
OLD = {
    "atlas": "Atlas Plan atlas atlas_plan",
    "atlas.plan": "Plan",
    "atlas.run": "atlas atlas_plan",
    "atlas.table": "Atlas",
    "baselines": "caa power_vectors random_vectors",
    "chat": "render_chat",
    "dct": "calibrated_radius dct",
    "demo": "ForkResult Solved fisher_vectors load_demo measure pair_vectors",
    "effects": "Effect Effects effects",
    "estimate": "Estimate",
    "evaluate": "Measured Choice LogitDifference accuracy bootstrap kl score_table wilson",
    "evaluation": "Measured Choice LogitDifference accuracy bootstrap kl score_table wilson",
    "forks": "FORKS questions split_of",
    "generation": "Generation Stream",
    "hooks": "Hook",
    "jacobian": "Jacobian Jacobians LinearMap",
    "jlens": "JLens JLensMap",
    "melbo": "melbo",
    "model": "Model from_transformers load",
    "positions": "Positions",
    "prompts": "Prompt Prompts",
    "selection": "Candidate Found SearchResult search",
    "sites": "SITES Site SiteLike parse_site resolve_site",
    "spec": "Spec",
    "steering": "Intervention",
    "svd": "SVDResult svd",
    "tokens": "Tokenizer",
    "vectors": "Cost ProvenanceWarning SteeringVector load_vectors save_vectors",
}


def python(code, *flags):
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("module", OLD)
def test_names_are_found_where_they_were(module):
    for name in OLD[module].split():
        space = {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            exec(f"from powersteer.{module} import {name}", space)
        assert space[name] is not None
        is_old = module not in FOLDERS or name not in vars(sys.modules[f"powersteer.{module}"])
        assert is_old == bool(caught), (module, name)
        assert all(w.category is DeprecationWarning and w.filename == "<string>" for w in caught), "points at the user's line"


def test_every_old_module_can_be_imported():
    code = "\n".join(f"import powersteer.{module}" for module in MOVED)
    done = python(f"{code}\nimport sys\nfor n in {list(MOVED)}: print(sys.modules['powersteer.' + n].__name__)")
    assert done.stdout.split() == [f"powersteer.{module}" for module in MOVED], done.stderr
    for module, new in MOVED.items():
        assert f"DeprecationWarning: powersteer.{module} is now powersteer{new and '.'}{new}\n" in done.stderr


def test_functions_stay_functions():
    for name in ("atlas", "svd", "effects", "dct", "melbo"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            exec(f"import powersteer.{name}")
        assert inspect.isfunction(getattr(ps, name))


def test_an_old_module_is_an_attribute_too():
    code = "import powersteer as ps\nprint(ps.positions.Positions is not None)\nimport powersteer.sites as old\nprint(old.Site is ps.Site)"
    done = python(code)  # Python shows such a warning where the user's own code is at fault
    assert done.stdout == "True\nTrue\n" and done.stderr.count("DeprecationWarning: powersteer.positions is now") == 1
    assert "powersteer.sites is now powersteer.inputs.sites" in done.stderr


def test_what_never_was_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        ps.nothing  # noqa: B018
    with pytest.raises(ImportError, match="nothing"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        exec("from powersteer.sites import nothing")
    for module in ("powersteer.nothing", "powersteer.sites.nothing"):
        with pytest.raises(ModuleNotFoundError), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            exec(f"import {module}")


def test_dir_is_what_is_public():
    assert dir(ps) == sorted(ps.__all__) and len(set(ps.__all__)) == len(ps.__all__)
    for name in ps.__all__:
        assert getattr(ps, name) is not None


def test_importing_warns_about_nothing_and_loads_no_extra():
    extras = "torch transformers matplotlib plotly pandas xarray gguf distributed jax tqdm jinja2 huggingface_hub prompt_toolkit"
    code = f"import powersteer, sys; print(sorted(set('{extras}'.split()) & set(sys.modules)))"
    done = python(code, "-W", "error")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout == "[]\n"


def test_searches_through_all_modules_meet_no_old_one():
    """pickle and inspect look for an object in every loaded module."""
    code = (
        "import powersteer as ps, pickle, inspect, sys, numpy\n"
        "add = numpy.frompyfunc(lambda a, b: a + b, 2, 1)\n"  # has no __module__: pickle asks every module for it
        "try: pickle.dumps(add)\n"
        "except pickle.PicklingError: pass\n"
        "inspect.getmodule(ps.svd); [inspect.getmembers(m) for n, m in list(sys.modules.items()) if n.startswith('powersteer')]\n"
        "print([name for name, m in sys.modules.items() if type(m).__name__ == '_MovedModule'])"
    )
    done = python(code, "-W", "error::DeprecationWarning")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_pickle_of_the_previous_release():
    """Classes that have moved are found under their old names."""
    site = pickle.dumps(ps.Site(3, "mlp_out"), protocol=0).replace(b"cpowersteer.inputs.sites\n", b"cpowersteer.sites\n")
    assert b"powersteer.sites" in site
    with pytest.warns(DeprecationWarning, match="powersteer.inputs.sites"):
        assert pickle.loads(site) == ps.Site(3, "mlp_out")


# ---- arguments


@deprecated_arguments(1, n="k", steps="iterations")
def function(a, *, k=1, iterations=2):
    return a, k, iterations


class Thing:
    @deprecated_arguments(2, n="k")
    def method(self, a, *, k=1):
        return a, k


def test_the_new_spelling_warns_about_nothing():
    assert function(0, k=3, iterations=4) == (0, 3, 4) and Thing().method(0, k=3) == (0, 3)


@pytest.mark.parametrize(("args", "kwargs", "words"), [
    ((0, 3), {"iterations": 4}, "function: pass k by keyword"),
    ((0, 3, 4), {}, "function: pass k, iterations by keyword"),
    ((0,), {"n": 3, "iterations": 4}, "function: 'n' is now called 'k'"),
    ((0, 3), {"steps": 4}, "function: 'steps' is now called 'iterations'"),
])  # fmt: skip
def test_an_old_spelling_works_and_warns(args, kwargs, words):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert function(*args, **kwargs) == (0, 3, 4)
    assert words in [str(w.message) for w in caught]
    assert all(w.category is DeprecationWarning and w.filename == __file__ for w in caught)


def test_of_a_method():
    with pytest.warns(DeprecationWarning, match=r"Thing.method: pass k by keyword"):
        assert Thing().method(0, 3) == (0, 3)
    with pytest.warns(DeprecationWarning, match="Thing.method: 'n'"):
        assert Thing().method(0, n=3) == (0, 3)


@pytest.mark.parametrize(("args", "kwargs"), [
    ((0,), {"k": 1, "n": 2}), ((0, 1), {"k": 2}), ((0, 1), {"n": 2}), ((0, 1, 2, 3), {}), ((), {"k": 1}), ((0,), {"m": 1}),
])  # fmt: skip
def test_what_no_release_accepted_is_a_type_error(args, kwargs):
    with pytest.raises(TypeError, match=r"function\(\)"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        function(*args, **kwargs)


def test_a_decorated_function_keeps_its_signature():
    assert str(inspect.signature(function)) == "(a, *, k=1, iterations=2)"
