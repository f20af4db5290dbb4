"""lm-evaluation-harness with powersteer's models, steered or not.

Importing this package registers the model "powersteer" with the harness. The harness finds no models of other packages by
itself, so its command line is started from here: `python -m powersteer.harness run --model powersteer ...`.
"""

import importlib.util

from ..errors import MissingDependency

if importlib.util.find_spec("lm_eval") is None:
    raise MissingDependency("powersteer.harness needs lm-evaluation-harness; pip install 'powersteer[harness]'")

from .model import HarnessModel

__all__ = ["HarnessModel"]
