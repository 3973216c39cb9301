from collections import Counter

import pytest
from store_lines import built, four_groups, store

from inbol_jax.construction.templates import TEMPLATES, RefusalMix
from inbol_jax.responses.refusal import is_refusal
from inbol_jax.taught_refusals import REFUSALS, SHORT_REFUSALS


def test_short_refusals_fit_the_embedded_vocabulary():
    assert len(SHORT_REFUSALS) == 4
    assert all(len(template.split()) <= 6 for template in SHORT_REFUSALS)
    assert REFUSALS[:4] == SHORT_REFUSALS
    assert len(set(REFUSALS)) == len(REFUSALS)


def test_a_refusal_depends_on_the_key_alone():
    keys = [f"q{i}" for i in range(2000)]
    whole, short = RefusalMix((("all", 1.0),)), RefusalMix((("short", 1.0),))
    picked = {key: whole.pick(key, 2) for key in keys}
    assert picked == {key: whole.pick(key, 2) for key in reversed(keys)}
    counts = [list(picked.values()).count(template) for template in REFUSALS]
    assert min(counts) > 0.5 * len(keys) / len(REFUSALS)
    # Fixed for good: a change would rewrite every dataset that was built.
    chosen = [SHORT_REFUSALS.index(short.pick(key, 2)) for key in ("q0", "q1", "q2")]
    assert chosen == [3, 2, 3]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_question_without_an_image_is_refused_without_one(name):
    mix = RefusalMix(((name, 1.0),))
    picked = {mix.pick(f"q{i}", type, pictured=False) for i in range(100) for type in (2, 3)}
    assert picked == {text for text in TEMPLATES[name][0] if "image" not in text}


def test_every_template_is_a_refusal_and_short_is_short():
    assert all(is_refusal(text) for sets in TEMPLATES.values() for texts in sets for text in texts)
    longest_short = max(len(text.split()) for text in TEMPLATES["short"][0])
    assert longest_short < min(len(text.split()) for text in TEMPLATES["long"][0])
    assert RefusalMix().pick("q", 3) == "I don't know."


def test_mix_of_refusals_with_their_shares(tmp_path):
    out = tmp_path / "run"
    store(out, "train", four_groups(300))
    _, instructions, _ = built(out, refusal_mix=(("one", 0.75), ("reason", 0.25)))
    for type in (2, 3):
        counts = Counter(i["response"] for i in instructions if i["type"] == type)
        assert counts["I don't know."] == pytest.approx(225, abs=30)
        assert set(counts) == {"I don't know.", *TEMPLATES["reason"][type == 3]}
    _, instructions, pairs = built(out, templates="reason")
    unknown, lacking = (set(texts) for texts in TEMPLATES["reason"])
    assert {i["response"] for i in instructions if i["type"] == 3} == lacking
    assert {p["rejected"] for p in pairs if p["kind"] == "correct_over_refusal"} == unknown
    chosen = {i["id"]: i["response"] for i in instructions}
    of_type_3 = [p for p in pairs if p["kind"] == "refusal_over_answer"]
    assert all(chosen[p["id"]] == p["chosen"] for p in of_type_3), "one refusal per question"
