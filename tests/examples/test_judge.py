"""A model behind an endpoint gives a second opinion on refusals and answers by the example."""

import json
import runpy
from pathlib import Path

import pytest
from endpoint_server import said as reply_of

from inbol_jax.artifacts import meta_path, read_jsonl, read_meta
from inbol_jax.errors import InbolError
from inbol_jax.responses.config import EndpointConfig

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples/judge.py"))
ROWS = [
    {"question": "Who?", "prediction": "I don't know."},
    {"question": "Who?", "responses": ["Anna", "I don't know.", "Anna"]},
    {"question": "What?", "prediction": "It beats me, honestly."},
    {"text": "red"},
    {"text": "hm"},
]


@pytest.fixture
def judged(serve, tmp_path):
    """`judged(reply)` is {(question, text): (rules, judge)} with a judge that replies so."""

    def run(reply, rows=ROWS, about="refusals"):
        server = serve(reply)
        endpoint = EndpointConfig(server.url, "judge-1", endpoint_retries=0)
        data, out = tmp_path / "responses.jsonl", tmp_path / "verdicts.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        EXAMPLE["judge"](EXAMPLE["Config"](data, out, endpoint, about))
        assert "secret" not in out.read_text() + meta_path(out).read_text()
        header = read_meta(out)
        assert (header["model"], header["prompt"]) == ("judge-1", EXAMPLE["ABOUT"][about][0])
        rows = list(read_jsonl(out))
        return {(row["question"], row["text"]): (row["rules"], row["judge"]) for row in rows}

    return run


def test_verdicts_stand_beside_the_rules(judged, capsys):
    """Whatever is not a single word is a refusal to this judge, and one reply of it is none."""

    def reply(body, n):
        response = body["messages"][1]["content"].split("Response: ")[1]
        if response == "hm":
            return reply_of("It depends")
        return reply_of("ANSWER" if " " not in response else "**Refusal**.")

    assert judged(reply) == {
        ("Who?", "I don't know."): (True, True),
        ("Who?", "Anna"): (False, False),
        ("What?", "It beats me, honestly."): (False, True),
        ("", "red"): (False, False),
    }
    assert capsys.readouterr().out.splitlines() == [
        "1 responses got no verdict; the first one because: the judge said 'It depends'",
        "rules and judge agree on 3 of 4 (kappa 0.500); REFUSAL to the rules alone 0, to the "
        "judge alone 1",
    ]


def test_answers_are_graded_by_their_gold_answers(judged, capsys):
    """What refuses, and what no answer is right to, is not asked about."""
    about = {"dataset": "d", "domain": "in_domain", "model": "base", "confidence": 0.5}
    about |= {"images": [], "question": "Which colour?", "answers": ["red", "crimson"], "type": 1}
    said = {"red": "correct", "scarlet": "wrong", "blue": "wrong", "I don't know.": "refused"}
    rows = [{"id": text, "prediction": text, "outcome": said[text], **about} for text in said]
    rows.append(rows[2] | {"id": "x", "type": 3})

    def reply(body, n):
        asked = body["messages"][1]["content"]
        assert "Gold answers: red | crimson\n" in asked
        return reply_of("WRONG" if asked.endswith("blue") else "Right.")

    found = judged(reply, rows, "answers")
    assert {text: verdict for (_, text), verdict in found.items()} == {
        "red": (True, True),
        "scarlet": (False, True),
        "blue": (False, False),
    }
    assert "agree on 2 of 3" in capsys.readouterr().out


def test_a_judge_that_cannot_be_asked_leaves_no_file(judged, tmp_path, monkeypatch):
    monkeypatch.setattr("inbol_jax.responses.endpoint.FAILURES_IN_A_ROW", 3)
    with pytest.raises(InbolError, match="status 401"):
        judged(lambda body, n: (401, {}, {}))
    assert not (tmp_path / "verdicts.jsonl").exists()
