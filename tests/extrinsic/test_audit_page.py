from inbol_jax.extrinsic.audit_page import (
    AuditResult,
    ModelAnswersSummary,
    ModelShortcut,
    Share,
    TextShortcut,
    findings,
    format_interval,
)
from inbol_jax.extrinsic.shortcut import Auc, Interval

HEADER = {"rows": 10, "counts": {"a: kept": 10, "a: present": 10}}
SHARE = Share(0.5, 0.4, 0.6, 10)


def sentences(text, image=None, blank=None, difference=None, half=0.02):
    """The findings if these are the AUCs, each with an interval of twice `half`."""

    def around(value):
        return Auc(value, value - half, value + half, (10, 10))

    model = None
    if image is not None:
        summaries = (ModelAnswersSummary(around(x), SHARE, SHARE) for x in (image, blank))
        interval = Interval(difference, difference - half, difference + half)
        model = ModelShortcut(0, *summaries, interval)
    return list(findings(AuditResult(HEADER, TextShortcut({"all": around(text)}, {}), model)))


def test_findings_follow_the_numbers():
    warning, kept, text = sentences(0.95)
    assert warning.startswith("Warning: the text alone")
    assert kept == "10 of 20 proposed questions passed the filters (50%)."
    assert "the text alone gives the questions away" in text
    assert "gives part of them away" in sentences(0.8)[1]
    assert "gives little away" in sentences(0.55)[1]
    assert "something away, though not much" in sentences(0.65, half=0.1)[1]
    assert "too few questions to say" in sentences(0.55, half=0.2)[1]
    assert "the image helps it" in sentences(0.6, 0.9, 0.6, 0.3)[2]
    assert "this does not show that it looks" in sentences(0.6, 0.6, 0.6, 0.01)[2]
    assert "worse with the image than without" in sentences(0.6, 0.5, 0.6, -0.1)[2]
    better = sentences(0.6, 0.9, 0.6, 0.3)[3]
    assert better == "The model with the image tells them better than the text, by 0.300."
    first = "to refuse by the text is what training on these questions would teach first"
    assert first in sentences(0.84, 0.6, 0.6, 0.0)[3]


def test_what_the_text_tells_is_warned_of_first_with_the_generators_to_blame():
    def around(value):
        return Auc(value, value - 0.01, value + 0.01, (10, 10))

    aucs = {"all": 0.88, "mismatched": 0.7, "beyond_frame": 0.9, "unseeable": 1.0}
    text = TextShortcut({name: around(value) for name, value in aucs.items()}, {})
    first = next(findings(AuditResult(HEADER, text)))
    assert first.startswith(
        "Warning: the text alone tells generated from real questions (AUC 0.88)"
    )
    assert "It is the questions of unseeable (1.00), beyond_frame (0.90): give" in first
    quiet = TextShortcut({"all": around(0.84), "unseeable": around(1.0)}, {})
    assert not next(findings(AuditResult(HEADER, quiet))).startswith("Warning")


def test_a_negative_interval_has_minus_signs():
    assert format_interval(Interval(-0.1, -0.2, 0.05), "+.2f") == "-0.10 (-0.20 to +0.05)".replace(
        "-", "\N{MINUS SIGN}"
    )
