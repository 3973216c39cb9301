from pathlib import Path

import pytest
from extrinsic_cases import example, run_funnel

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import Reply
from inbol_jax.extrinsic.model_written import parse_questions
from inbol_jax.extrinsic.templates import WRITER_PROMPT


def test_lines_of_what_a_model_wrote():
    text = """1. What is behind the wall?
- "Who owns it?"

2) What is behind the wall?
* **What is next?**
Sure!"""
    questions = ["What is behind the wall?", "Who owns it?", "What is next?", "Sure!"]
    assert parse_questions(text) == questions
    assert parse_questions("") == []
    assert parse_questions("3 dogs are there, why?") == ["3 dogs are there, why?"]


def test_model_written_questions_go_through_the_filters():
    asked = []

    def writer(items, *, n, temperature, max_new_tokens, label):
        asked.extend(items)
        texts = {
            "0.png": "Here are some:\n1. Who took it?\n2. What is hidden behind the dog?",
            "1.png": "What color is the kite?",
            "3.png": "\n",
        }
        return [[Reply(texts[item.name])] if item.name in texts else [] for item in items]

    examples = [example(i) for i in range(4)]
    rows, verdicts, set_aside, _ = run_funnel(
        examples, "model_written", writer=writer, root=Path("images")
    )
    assert [(r["image"], r["question"]) for r in rows] == [("0.png", "Who took it?")]
    assert verdicts == {
        ("model_written", "ill_formed"): 1,
        ("model_written", "kept"): 1,
        ("model_written", "duplicate"): 1,
    }
    assert set_aside == {
        ("model_written", "could not be asked"): 1,
        ("model_written", "model wrote no question"): 1,
    }
    assert sorted(a.image for a in asked) == [Path(f"images/{i}.png") for i in range(4)]
    assert {a.question for a in asked} == {
        WRITER_PROMPT.format(n=3, question=example(i).question) for i in range(4)
    }


def test_nobody_to_write():
    with pytest.raises(InbolError, match="needs --model, or --endpoint with --endpoint-model"):
        run_funnel([example(0)], "model_written")
