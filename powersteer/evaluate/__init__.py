"""Metrics of a steered model, scores of single items, and confidence intervals. Public as `powersteer.evaluate`."""

from ..vectors.with_model import provide
from .calibration import calibrate
from .coherence import Coherent, coherent
from .degeneration import Repetition, repetition
from .intervals import MetricResult, bootstrap, summary, wilson
from .lens import LensToken, LogitLens, logit_lens
from .metrics import accuracy, choice, first_order, kl, linearity, perplexity, presence_ratio
from .scores import Choice, LogitDifference, LogitScore, Score, TextScore, contains, score_table, token_id
from .side_effects import Movement, Selectivity, selectivity
from .strength import Curve, curve
from .vocabulary import TokenChange, top_tokens

__all__ = [
    "Choice",
    "Coherent",
    "Curve",
    "LensToken",
    "LogitDifference",
    "LogitLens",
    "LogitScore",
    "MetricResult",
    "Movement",
    "Repetition",
    "Score",
    "Selectivity",
    "TextScore",
    "TokenChange",
    "accuracy",
    "bootstrap",
    "calibrate",
    "choice",
    "coherent",
    "contains",
    "curve",
    "first_order",
    "kl",
    "linearity",
    "logit_lens",
    "perplexity",
    "presence_ratio",
    "repetition",
    "score_table",
    "selectivity",
    "summary",
    "token_id",
    "top_tokens",
    "wilson",
]

provide(calibrate=calibrate, top_tokens=top_tokens)  # to the methods of a vector that run a model
