"""`Model.play`: sliders and texts in a notebook, kept together by a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..errors import InvalidInput, MissingDependency
from ..vectors.steering_vector import SteeringVector, action
from .picture import picture
from .session import Comparison, Session
from .worker import Worker

__all__ = ["Play"]

_PATIENCE = 5.0  # seconds that a cell waits for its first answer, for the picture that the notebook keeps


class Play:
    """A slider for each vector, and the plain and the steered continuation of a prompt. Made by `Model.play`.

    Where widgets cannot run (nbconvert, a notebook on GitHub), it is a picture of what the cell saw.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> vec = model.jacobian("Q: 3*4\\nA:", source=1, target=3).svd(k=1).vectors[0]
    >>> play = model.play("Q: 3*4\\nA:", [vec.relative(0.5)])
    >>> play
    Play('<s>Q: 3*4\\nA:', 2.405 × blocks.1.hook_mlp_out)
    >>> play.close()
    """

    def __init__(self, session: Session) -> None:
        try:
            from .widget import View
        except ImportError:
            raise MissingDependency("play needs anywidget: pip install 'powersteer[notebook]'") from None
        self._session, self._strengths = session, session.strengths
        self._seen = Comparison(session.prompt, session.strengths)
        self._error: Exception | None = None
        labels = [f"{v.location}{'' if v.rank is None else f', rank {v.rank}'} ({v.method})" for v in session.vectors]
        self._labels = [
            f"{'clamp ' if v.operation == 'clamp' else ''}{x}" for v, x in zip(session.vectors, labels, strict=True)
        ]
        sliders = [{"label": label, "limit": limit} for label, limit in zip(self._labels, session.limits, strict=True)]
        self._view = View(sliders=sliders, strengths=list(self._strengths), seen=asdict(self._seen))
        self._view.observe(lambda change: self._move(change["new"]), "strengths")
        self._worker: Worker[Sequence[float]] = Worker(session.run, self._show, self._fail)
        self._worker.request(self._strengths)

    @property
    def vectors(self) -> list[SteeringVector]:
        """The vectors at the sliders' present strengths."""
        return self._session.at(self._strengths)

    def wait(self, seconds: float | None = None) -> Comparison:
        """What is seen once the answer to the present strengths is complete, or after so many seconds.

        Raises
        ------
        PowersteerError
            The error that ended the answer, if one did.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> play = model.play("Q: 3*4\\nA:", ps.random_vectors(model, 2)[0])
        >>> play.wait().finished
        True
        """
        self._worker.wait(seconds)
        if self._error is not None:
            raise self._error
        return self._seen

    def close(self) -> None:
        """Stop generating and take the sliders away. The vectors stay.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> play = model.play("Q: 3*4\\nA:", ps.random_vectors(model, 2)[0])
        >>> play.close()
        >>> len(play.vectors)
        1
        """
        self._worker.close()
        self._view.close()

    def _move(self, strengths: Sequence[float]) -> None:
        """Answer to strengths that the page sent."""
        try:
            self._session.at(strengths)
        except InvalidInput as error:
            self._fail(error)
            return
        self._strengths = tuple(strengths)
        self._worker.request(self._strengths)

    def _show(self, seen: Comparison) -> None:
        self._seen, self._error = seen, None
        self._view.error, self._view.seen = "", asdict(seen)

    def _fail(self, error: Exception) -> None:
        self._error, self._view.error = error, str(error)

    def __repr__(self) -> str:
        return f"Play({self._session.prompt!r}, {', '.join(map(action, self.vectors))})"

    def _repr_html_(self) -> str:
        return picture(self._seen, self._labels)

    def _ipython_display_(self) -> None:
        """Show the sliders at once, and what is seen after the first answer as the picture for later."""
        from IPython import display

        show: Any = display.display
        handle = show(self._bundle(), raw=True, display_id=True)
        if not self._seen.finished:
            self._worker.wait(_PATIENCE)
            handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self._view.model_id}
        return {
            "application/vnd.jupyter.widget-view+json": view,
            "text/html": self._repr_html_(),
            "text/plain": repr(self),
        }
