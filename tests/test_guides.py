"""The code of the README and the how-to pages runs, on the built-in model: what a page takes as given is in `given`, and what
only a larger model has, or would take longer, is shortened by SHORTER. The front page's code and the tutorial's run in
test_site.py, that of pytest.md in test_pytest_plugin.py."""

from __future__ import annotations

import re

import pytest
from test_site import PAGES, ROOT, python_blocks

import powersteer as ps

SHORTER = {
    "3, 9, 0": "1, 3, 0", "source=3, target=9": "source=1, target=3", ".top(3)[12]": ".top(3)[4]", '" yes"': '" It"',
    "k=12, out=": "k=2, sources=[1, 2], targets=[3, 4], out=", "[0.1, 0.2, 0.5, 1.0]": "[0.1, 0.2]",
    "effects(4, scales=[0.35, 1.0]": "effects(2, scales=[1.0], n_random=1, max_new_tokens=4",
    "effects(k=2, scales=[0.35, 1.0]": "effects(k=2, scales=[1.0], n_random=1, max_new_tokens=4",
    "scales=[0.5, 1.0])": "scales=[1.0], n_random=1, max_new_tokens=4)",
    "test=test)": "test=test, n_random=1, max_new_tokens=4)",
    "score=wanted)": "score=wanted, scales=[1.0], n_random=1, max_new_tokens=4)",
    '("test", 40)': '("test", 4)', "n_random=5, max_new_tokens=40": "n_random=1, max_new_tokens=4",
    '"n_random": 2, "max_new_tokens": 40': '"n_random": 1, "max_new_tokens": 4',
}  # fmt: skip
# A cluster, an evaluation harness, a torch model: their calls run in the tests of executors, of the harness and of hooks
ELSEWHERE = r"^(?:from|import) (?:loky|dask_jobqueue|mpi4py|lm_eval|torch)\b|hf_model"
RUN_ELSEWHERE = {"index.md", "tutorial.md", "pytest.md"}
GUIDES = [ROOT / "README.md", *(page for page in PAGES if python_blocks(page) and page.name not in RUN_ELSEWHERE)]


@pytest.fixture(scope="module")
def demo():
    return ps.load("demo")


def given(model):
    """The names that the pages' sentences introduce."""
    prompts = ["Q: 12*3\nA:", "Q: 276*4\nA:"]
    vectors = model.jacobian(prompts[0], 1, 3).svd(k=3).vectors
    score = ps.evaluate.contains(r"\d")
    return {
        "ps": ps, "model": model, "prompt": prompts[0], "prompts": prompts, "vectors": vectors, "vec": vectors[0], "score": score,
        "wanted": score, "validation": ["Q: 3*4\nA:", "Q: 5*6\nA:"], "test": ["Q: 7*8\nA:", "Q: 9*4\nA:"],
        "questions": ["Q: 8*8\nA:", "Q: 2*9\nA:"], "articles": ["It is 36.", "It is 12."], **dict(zip("abc", vectors, strict=True)),
    }  # fmt: skip


def blocks(page):
    """What runs here, and what does not."""
    here, elsewhere = [], []
    for code in python_blocks(page):
        for text, short in SHORTER.items():
            code = code.replace(text, short)
        code = re.sub(r"^model = ps\.from_transformers\(.*$", "", code, flags=re.M)  # by the tests of transformers' models
        (elsewhere if re.search(ELSEWHERE, code, re.M) else here).append(code)
    return here, elsewhere


def test_little_is_left_to_other_tests():
    everything = "".join(code for page in GUIDES for code in python_blocks(page))
    assert all(text in everything for text in SHORTER), "a page no longer says what is shortened"
    left = {page.name: len(blocks(page)[1]) for page in GUIDES}
    assert {name: n for name, n in left.items() if n} == {"README.md": 1, "atlas.md": 3, "harness.md": 2, "transformers.md": 2}


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_the_code_of_a_guide_runs(page, demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = given(demo)
    names["vec"].save("v.safetensors")
    ps.save_steered("v.pt", [names["vec"]], demo)
    for code in blocks(page)[0]:
        exec(re.sub(r'ps\.load\("[^"]*"\)', 'ps.load("demo")', code), names)
