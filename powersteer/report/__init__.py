"""An atlas as one HTML file that needs no server and no network."""

from .page import write_report

__all__ = ["write_report"]
