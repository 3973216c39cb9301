from made_predictions import MODELS, good_and_bad, measured, metrics_of, with_validation

from inbol_jax.evaluation import plots
from inbol_jax.evaluation.prediction import calibrated
from inbol_jax.pages import figures


def test_figure_4_takes_bins_with_nothing_in_them():
    known = [p for p in good_and_bad() if p.type == 1]
    figure = plots.confidence_curves(known, MODELS, "in_domain").figure
    assert len(figure.axes) == 2
    assert [len(axes.lines) for axes in figure.axes] == [3, 3]
    assert figures.svg(figure, prefix="f", label="f")


def test_figure_4_names_every_model():
    models = ("base", "_hidden", "e" * 80)
    made = good_and_bad(8, models)
    figure = plots.confidence_curves(made, models, "in_domain").figure
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["base", "_hidden", f"{'e' * 9}…{'e' * 10}"]


def test_the_tradeoff_names_every_line_and_marks_where_models_are():
    models = ("base", "_hidden", "e" * 80)
    _, metrics = measured(with_validation(good_and_bad(40, models)))
    drawing = plots.tradeoff(metrics)
    figure = drawing.figure
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    others = [f"base ({name} threshold)" for name in ("likelihood", "consistency", "P(True)")]
    others.append("base (linear probe)")
    assert names == ["base", "_hidden", f"{'e' * 9}…{'e' * 10}", *others, "oracle"]
    for axes, domain in zip(figure.axes, metrics.domains, strict=True):
        points = {tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1}
        for name in (*models, *map(calibrated, models), "oracle"):
            scores = metrics.models[name][domain]["all"]
            assert (scores.refr, scores.t) in points
    assert drawing.name == "tradeoff"
    assert "<svg" in drawing.svg


def test_the_fronts_name_every_line_and_draw_what_was_measured():
    _, metrics = measured(with_validation(good_and_bad(40)))
    figure = plots.fronts(metrics).figure
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    names = list(metrics.prices)
    assert shown == [metrics.label(name) for name in names]
    assert {*MODELS} < {*names}
    above, below = figure.axes[:2], figure.axes[2:]
    for axes, domain in zip(above, metrics.domains, strict=True):
        for name, line in zip(names, axes.lines, strict=True):
            values = [cell.value for cell in metrics.prices[name][domain].values()]
            assert list(line.get_ydata()) == values
    # Always refusing answers nothing, and the oracle has no threshold.
    assert [len(axes.lines) for axes in below] == [len(names) - 2] * 2


def test_summary_bars_are_the_same_every_time():
    metrics = metrics_of(good_and_bad())
    first, second = (plots.summary_bars(metrics, "in_domain").svg for _ in "ab")
    assert first == second
