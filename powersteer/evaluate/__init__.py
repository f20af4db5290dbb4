"""Metrics of a steered model, scores of single items, and confidence intervals. Public as `powersteer.evaluate`."""

from .degeneration import Repetition, repetition
from .intervals import MetricResult, bootstrap, summary, wilson
from .metrics import accuracy, choice, curve, first_order, kl, linearity, perplexity, presence_ratio
from .scores import Choice, LogitDifference, LogitScore, Score, contains, score_table, token_id

__all__ = [
    "Choice",
    "LogitDifference",
    "LogitScore",
    "MetricResult",
    "Repetition",
    "Score",
    "accuracy",
    "bootstrap",
    "choice",
    "contains",
    "curve",
    "first_order",
    "kl",
    "linearity",
    "perplexity",
    "presence_ratio",
    "repetition",
    "score_table",
    "summary",
    "token_id",
    "wilson",
]
