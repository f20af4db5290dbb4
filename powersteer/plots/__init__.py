"""Figures with matplotlib (`pip install 'powersteer[plots]'`), which is imported when the first one is drawn.

Every function draws into `ax`, or into the axes of a new figure, and returns the axes; none of them shows or saves the
figure. A line of small print under the title names the model, the sites and the prompts. Colours are cividis, or purple to
orange around zero: both remain distinguishable in the common kinds of colour blindness and in grey.
"""

from .curves import effect_curve, violin
from .maps import cosine_map, sensitivity_map
from .spectrum import spectra
from .strength import strength_curve

__all__ = ["cosine_map", "effect_curve", "sensitivity_map", "spectra", "strength_curve", "violin"]
