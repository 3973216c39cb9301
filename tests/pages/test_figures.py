import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from inbol_jax.pages import figures


@matplotlib.rc_context(figures.STYLE)
def draw():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def test_an_svg_is_the_same_every_time_and_has_an_escaped_label():
    first, second = (figures.svg(draw(), prefix="p", label='a "label" <b>') for _ in range(2))
    assert first == second
    assert first.startswith('<svg id="p" role="img" aria-label="a &quot;label&quot; &lt;b&gt;"')
    assert "<metadata" not in first
    assert "<!--" not in first


def test_a_png_has_160_dots_per_inch(tmp_path):
    figures.save(draw(), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (320, 160)
