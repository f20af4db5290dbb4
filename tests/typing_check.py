"""Types that a user's checker infers; read by mypy in test_typing.py, never run."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import powersteer as ps
from powersteer.evaluate import MetricResult
from powersteer.model import ActivationCache, Generation, Jacobian, Jacobians, Stream

model = ps.load("demo")
chat = [{"role": "user", "content": "Hi"}]
ids = [1, 2, 3]

assert_type(model("text"), NDArray[Any])
assert_type(model(["text", "text"]), list[NDArray[Any]])
assert_type(model(chat), NDArray[Any])
assert_type(model(ids), NDArray[Any])
assert_type(model([ids, ids]), list[NDArray[Any]])
assert_type(model(np.array(ids)), NDArray[Any])
assert_type(model.tokens("text"), NDArray[np.int32])
assert_type(model.tokens([chat, chat]), list[NDArray[np.int32]])
assert_type(model.to_str_tokens("text"), list[str])
assert_type(model.to_str_tokens(["text"]), list[list[str]])
assert_type(model.run_with_cache("text"), tuple[NDArray[Any], ActivationCache])
assert_type(model.run_with_cache(["text"]), tuple[list[NDArray[Any]], list[ActivationCache]])
assert_type(model.run_with_cache("text")[1]["blocks.1.hook_mlp_out"], NDArray[Any])
assert_type(model.activations("text", (1, "mlp_out")), NDArray[Any])
assert_type(model.activations(["text"], (1, "mlp_out")), list[NDArray[Any]])
assert_type(model.generate("text", max_new_tokens=3), Generation)
assert_type(model.generate(["text"], temperature=1.0), list[Generation])
assert_type(model.generate("text", stream=True), Stream[str, Generation])
assert_type(model.generate(["text"], stream=True), Stream[tuple[int, str], list[Generation]])
assert_type(model.generate("text", stream=True).result, Generation)
assert_type(model.jacobian("text", 1, 3), Jacobian)
assert_type(model.jacobians("text", 1, [2, 3]), Jacobians)
vec = ps.random_vectors(model, 1)[0]
assert_type(ps.evaluate.kl(model, "text", vec, continuation=3), MetricResult)
assert_type(ps.evaluate.kl(model, prompts="text", vectors=[vec, None], seed=1), list[MetricResult])
assert_type(ps.evaluate.accuracy(model, ["text"], score=ps.evaluate.contains("x")), MetricResult)
assert_type(ps.evaluate.linearity(model, "text", [vec]), list[MetricResult])
difference = ps.evaluate.LogitDifference("a", "b")
assert_type(ps.evaluate.first_order(model, "text", vec, score=difference), MetricResult)
assert_type(ps.evaluate.first_order(model, ["text"], [vec], score=difference), list[MetricResult])
ps.evaluate.accuracy(model, ["text"], vec)  # type: ignore[call-overload]
model.generate("text", max_tokens=3)  # type: ignore[call-overload]
assert_type(ps.testing.Cache("folder")(model.jacobian("text", 1, 3).dense), NDArray[Any])
assert_type(ps.testing.Cache("folder")(ps.random_vectors, model, 1, k=2), list[ps.SteeringVector])
