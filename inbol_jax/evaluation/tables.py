"""The report's tables of scores; how it names domains and groups, and how it writes numbers."""

from collections.abc import Iterable, Sequence

from inbol_jax.evaluation.metrics import (
    GROUPS,
    Metrics,
    Scores,
    best_baseline,
    by_question_kind,
    refusal_f1,
)
from inbol_jax.evaluation.prediction import Prediction, by_likelihood
from inbol_jax.evaluation.selective import MIN_QUESTIONS, Calibration
from inbol_jax.pages.figures import MINUS
from inbol_jax.pages.table import Table

DOMAIN_LABELS = {"in_domain": "In domain", "out_of_domain": "Out of domain"}
GROUP_LABELS = {
    "type1": "Type 1: known, answer",
    "mixed": "Mixed",
    "type2": "Type 2: unknown, refuse",
    "type12": "Types 1+2: all answerable",
    "type3": "Type 3: unanswerable, refuse",
    "all": "All",
}
NONE = "\N{EN DASH}"
SPACE = "\N{NO-BREAK SPACE}"
MARKS = {1: f"{SPACE}▲", 0: "", -1: f"{SPACE}▼"}  # by the verdict of an interval


def short_label(group: str) -> str:
    """The name of a group without what the model should do: "Type 1"."""
    return GROUP_LABELS[group].split(":")[0]


def percent(share: float) -> str:
    """A share of 1 in percent, with one decimal."""
    return f"{100 * share:.1f}%"


def signed(number: float, decimals: int = 3) -> str:
    """A number with its sign. A number that is rounded to zero has no minus."""
    return f"{round(number, decimals) + 0.0:+.{decimals}f}".replace("-", MINUS)


def with_interval(value: float, low: float, high: float) -> str:
    """A number with the ends of its interval: "+0.500 (+0.400 to +0.600)"."""
    return f"{signed(value)} ({signed(low)}{SPACE}to{SPACE}{signed(high)})"


def t_of(scores: Scores) -> str:
    """T of a group with its interval."""
    return with_interval(scores.t, scores.t_low, scores.t_high)


def worth_of_rule(name: str, rule: str, found: Calibration) -> str:
    """A sentence on a bias, or a least log-probability, which warns if it cannot be relied on."""
    chosen, gain = with_interval(*found.bias), with_interval(*found.gain)
    what = {"bias": "a bias of", "likelihood": "answers from a log-probability of"}[rule]
    said = f"{name}: {what} {chosen}, chosen on {found.n} validation questions. "
    said += f"Where it was not chosen it gains {gain} of T"
    if not found.tells:
        said = (
            f"Warning: {said}, which is not told from nothing: take more questions, or none of it"
        )
    return f"{said}."


def duration(seconds: float | int) -> str:
    """Seconds below a minute, minutes and seconds below an hour, hours and minutes above."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def summary_table(metrics: Metrics) -> Table:
    """What an evaluation found, in a few rows: each model, as it is and with a threshold on its own
    likelihood if there is one, and what it has to be compared with."""
    base, *trained = metrics.asked
    names = [base, *trained]
    names += [name for name in map(by_likelihood, trained) if name in metrics.models]
    best = {domain: best_baseline(metrics.models, base, domain) for domain in metrics.domains}
    names += [name for name in dict.fromkeys(best.values()) if name not in names]
    ends = (name for name in ("always_refuse", "oracle") if name in metrics.models)
    names += [name for name in ends if name not in names]
    rows = []
    for name in names:
        row = [metrics.label(name)]
        for domain in metrics.domains:
            scores = metrics.models[name][domain]
            mark = " ★" if name == best[domain] else ""
            row += [f"{signed(scores['all'].t)}{mark}", percent(scores["all"].refr)]
        rows.append(row)
    spans = [("", 1), *((DOMAIN_LABELS[domain], 2) for domain in metrics.domains)]
    columns = ("", *("T", "Refused") * len(metrics.domains))
    caption = (
        "What was found. T is the mean worth of a response: +1 if correct, 0 if refused, "
        f"{MINUS}1 if wrong; if nothing could answer the question, +1 if refused, else {MINUS}1. "
        "★: the best of what needs no training of the model"
    )
    return Table(caption, columns, rows, spans)


def score_table(metrics: Metrics, domain: str) -> Table:
    """Acc, RefR and T of every model on every type of question in one domain."""
    rows = []
    for group, label in GROUP_LABELS.items():
        cells = {model: metrics.models[model][domain][group] for model in metrics.asked}
        if n := next(iter(cells.values())).n:  # all models were asked the same questions
            rows.append([f"{label} ({n} questions)"])
            rows += [[m, percent(c.acc), percent(c.refr), t_of(c)] for m, c in cells.items()]
    return Table(DOMAIN_LABELS[domain], ("", "Acc", "RefR", "T (95% interval)"), rows)


def difference_table(metrics: Metrics) -> Table:
    """Paired differences of T between models, with a mark if the interval leaves 0 out."""
    rows: dict[tuple[str, str, str], list[str]] = {}  # a row per pair, a cell per group
    for d in sorted(metrics.differences, key=lambda d: d.domain):
        change = f"{DOMAIN_LABELS[d.domain]}: {metrics.label(d.b)} {MINUS} {metrics.label(d.a)}"
        cell = NONE
        if d.diff is not None:
            number, interval = with_interval(d.diff, d.low, d.high).split(" ", 1)
            cell = f"{number}{MARKS[d.verdict]} {interval}"
        rows.setdefault((d.domain, d.a, d.b), [change]).append(cell)
    caption = (
        "Paired differences of T, with 95% intervals. "
        "▲: the interval lies above 0, so T is better; ▼: it lies below 0, so T is worse. "
        f"Fewer than {MIN_QUESTIONS} questions, or changes that are all alike, have no mark"
    )
    return Table(caption, ("Change", *map(short_label, GROUPS)), list(rows.values()))


def baseline_tables(metrics: Metrics) -> list[Table]:
    """Per domain, everything that is compared; what it is worth at other prices, and what the
    curves say, if there are any."""
    tables = []
    for domain in metrics.domains:
        tables.append(_policy_table(metrics, domain))
        if metrics.curves:
            tables += [_price_table(metrics, domain), _curve_table(metrics, domain)]
    return tables


def _policy_table(metrics: Metrics, domain: str) -> Table:
    groups, rows = ("type1", "type2", "type12", "type3"), []  # whose T has a column of its own
    for name, domains in metrics.models.items():
        scores = domains[domain]
        whole, acc = scores["all"], scores["type12"].acc
        row = [
            metrics.label(name),
            percent(whole.refr),
            NONE if acc is None else percent(acc),
            t_of(whole),
        ]
        false, f1 = scores["type1"].refr, refusal_f1(scores)
        row += [NONE if false is None else percent(false), NONE if f1 is None else f"{f1:.3f}"]
        row += [NONE if scores[g].t is None else signed(scores[g].t) for g in groups]
        rows.append(row)
    n = metrics.models[metrics.asked[0]][domain]["all"].n
    caption = f"{DOMAIN_LABELS[domain]}: models and baselines on {n} questions"
    columns = ("", "RefR", "Acc, answerable", "T (95% interval)", "False refusals", "Refusal F1")
    return Table(caption, (*columns, *(f"T, {short_label(g)}" for g in groups)), rows)


def _price_table(metrics: Metrics, domain: str) -> Table:
    rows = []
    for name, domains in metrics.prices.items():
        cells = domains[domain].values()
        rows.append([metrics.label(name), *(f"{signed(c.value)}{MARKS[c.verdict]}" for c in cells)])
    prices = next(iter(metrics.prices.values()))[domain]
    caption = (
        f"{DOMAIN_LABELS[domain]}: the mean value if a wrong answer costs more or less than a "
        "correct one is worth. ▲, ▼: a trained model above or below the best of what needs no "
        "training, by its paired 95% interval"
    )
    return Table(caption, ("", *(f"Price {price}" for price in prices)), rows)


def _curve_table(metrics: Metrics, domain: str) -> Table:
    rows, some = [], next(iter(metrics.curves.values()))[domain]
    for name, domains in metrics.curves.items():
        c = domains[domain]
        row = [
            metrics.label(name),
            *(NONE if x is None else f"{x:.3f}" for x in (c.auroc_type3, c.auroc_wrong)),
        ]
        row.append(NONE if c.aurc.value is None else "{:.3f} ({:.3f} to {:.3f})".format(*c.aurc))
        change = c.aurc_change
        row.append(NONE if change is None or change.value is None else with_interval(*change))
        row += [percent(coverage) for coverage in c.coverage_at_risk.values()]
        row += [signed(phi, 2) for phi in c.phi.values()]
        rows.append([*row, signed(c.best_t)])
    caption = f"{DOMAIN_LABELS[domain]}: what each score is worth, whatever the threshold"
    columns = ("", "AUROC Type 3", "AUROC wrong", "AURC", f"AURC {MINUS} base's")
    columns += tuple(f"Coverage at risk {float(risk):.0%}" for risk in some.coverage_at_risk)
    columns += tuple(f"Φ {cost}" for cost in some.phi)
    return Table(caption, (*columns, "Best T"), rows)


def kind_tables(predictions: Iterable[Prediction], models: Sequence[str]) -> list[Table]:
    """Scores by kind of question: Type 3 first, then the answerable questions; none is empty."""
    rows: dict[bool, list[list[str]]] = {True: [], False: []}  # whether of Type 3 -> rows
    for (domain, type3, kind), cells in by_question_kind(predictions).items():
        n = cells[models[0]].n
        rows[type3].append([f"{DOMAIN_LABELS[domain]}: {kind or '(no kind)'} ({n} questions)"])
        for model in models:
            c = cells[model]
            acc = [] if type3 else [percent(c.acc)]  # there is no answer that could be right
            rows[type3].append([model, *acc, percent(c.refr), signed(c.t)])
    tables = (
        Table("Type 3 by kind of question", ("", "RefR", "T"), rows[True]),
        Table("Answerable questions by kind", ("", "Acc", "RefR", "T"), rows[False]),
    )
    return [table for table in tables if table.rows]
