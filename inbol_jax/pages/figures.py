"""The style of all figures, and how they are written. There is no pyplot, so no global state."""

import html
import io
import re
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from inbol_jax.artifacts import write_atomically

MINUS = "\N{MINUS SIGN}"
GOOD, NEUTRAL, BAD = "#0072b2", "#c9cdd2", "#c04e00"  # user value +1, 0, -1

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a9099",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "text.parse_math": False,  # a model may be called "a$b"
    "svg.fonttype": "path",
    "svg.hashsalt": "inbol_jax",  # ids in an SVG are random without it
}


def svg(figure: Figure, *, prefix: str, label: str) -> str:
    """The figure as an SVG element to stand inside HTML, without prologue and metadata.

    Args:
      prefix: begins every id of the figure, and differs between the figures of one page.
      label: is read aloud by screen readers; it is escaped.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = text.replace('<style type="text/css">*', f'<style type="text/css">#{prefix} *')
    opening = f'<svg id="{prefix}" role="img" aria-label="{html.escape(label)}"'
    return text.replace("<svg", opening, 1)


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as a PNG with 160 dots per inch on white, atomically."""
    buffer = io.BytesIO()
    options = {"dpi": 160, "facecolor": "white", "metadata": {"Software": None}}
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", **options)
    write_atomically(path, buffer.getvalue())
