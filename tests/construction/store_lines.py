"""Lines of confidence stores, and strategies for them, for the tests of what is built from them."""

import pytest
from hypothesis import strategies as st

from inbol_jax.answers import AnswerStore, Generation, to_row
from inbol_jax.artifacts import read_jsonl, write_jsonl
from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.confidence.samples import asker_of, sampled_question
from inbol_jax.construction.build import FILES, BuildConfig, build
from inbol_jax.construction.instructions import make_instruction
from inbol_jax.construction.preferences import make_preferences
from inbol_jax.construction.record import make_record
from inbol_jax.data.rows import make_example
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.prompts import BARE
from inbol_jax.stage import Stage
from inbol_jax.taught_refusals import REFUSALS, TEMPLATES

WRONG = ("blue", "pink", "blue", "blue", "green", "pink", "blue", "blue", "blue", "pink") * 2
UNCAPPED = {"max_refusals": 1.0}


def line(id, outcomes, *, answerable=True, **changes):
    """A question with its samples, of which the letters say what they will be judged: correct,
    wrong or refused."""
    wrong = iter(WRONG)
    row = {
        "id": id,
        "images": ["x.png"],
        "question": f"What color is thing {id}?",
        "answers": ["red"] if answerable else [],
        "answerable": answerable,
        "samples": [{"c": "red", "r": "I cannot tell."}.get(o) or next(wrong) for o in outcomes],
    }
    return row | changes


def question_of(row):
    """The sampled question of a line, as it is read from a store."""
    example = make_example({name: row[name] for name in row if name != "samples"})
    return sampled_question(example, [Generation(text, -1.0, 2) for text in row["samples"]])


LINES = [
    line("known", "ccccccccww"),
    line("sure", "cccccccccc"),
    line("mixed", "cccccwwwwr"),
    line("torn", "cccccccc" + "rr"),
    line("unknown", "wwwwwwwwww"),
    line("hardly", "cwwwwwwwww"),
    line("shy", "rrrrrrrrrr"),
    line("type3", "wwwwwwwwrr", answerable=False, generator="unseeable"),
    line("type3-refused", "rrrrrrrrrr", answerable=False),
    line("empty", "wwwwwwwwww", samples=[""] * 10),
]


def four_groups(n=60):
    """n questions of each type, and n Mixed ones."""
    shapes = {
        "known": "ccccccccww",
        "mixed": "ccccwwwwrr",
        "unknown": "wwwwwwwwcc",
        "beyond": "wwwwwwwwww",
    }
    return [
        line(f"{name}{i}", outcomes, answerable=name != "beyond")
        for name, outcomes in shapes.items()
        for i in range(n)
    ]


def store(out, name, rows, model="m1", asked=None):
    """Writes a dataset beside `out`, and its samples into `out`/confidence.

    Args:
      asked: of several processes the rows that each asked; by default one asked them all.
    """
    data, file = out.parent / "data", out / "confidence" / f"{name}.jsonl"
    for old in file.parent.glob(f"{name}*"):
        old.unlink()
    questions = [{k: row[k] for k in row if k != "samples"} for row in rows]
    write_jsonl(data / f"{name}.jsonl", questions, {})
    (data / "x.png").write_bytes(b"a picture")
    settings = {
        "model": model,
        "n": 10,
        "seed": 0,
        "prompt": "bare",
        "system": "",
    }
    settings |= {"data": f"../../data/{name}.jsonl", "images": "../../data"}
    dataset = load_dataset_folder(data / f"{name}.jsonl")
    with Stage(file, "confidence", settings, grows=True) as stage:
        asker = asker_of(stage.header["settings"], dataset)
        keys = asker.keys(dataset.examples)
        for process, part in enumerate(asked or [rows]):
            with AnswerStore(file, process) as answers:
                said = {row["id"]: [Generation(t, -1.0, 2) for t in row["samples"]] for row in part}
                answers.add({keys[id]: to_row(given) for id, given in said.items()})
        stage.finish(len(rows))
    return file


def records(lines=LINES, thresholds=None):
    return [make_record(question_of(row), thresholds or Thresholds()) for row in lines]


def instructions(records, templates="short", seed=0):
    made = (make_instruction(record, BARE, templates, seed) for record in records)
    return [instruction for instruction in made if instruction]


def preferences(records, templates="short", seed=0):
    made = (make_preferences(record, BARE, templates, seed) for record in records)
    return [pair for pairs in made for pair in pairs]


def built(out, **options):
    """The rows of the three files that `inbol build` writes where none are yet."""
    (out / FILES[0]).unlink(missing_ok=True)
    build(BuildConfig(out, **(UNCAPPED | options)))
    return [list(read_jsonl(out / name)) for name in FILES]


def build_fails(out, message, **options):
    """`inbol build` ends with one line, and leaves nothing temporary."""
    with pytest.raises(InbolError, match=message) as caught:
        build(BuildConfig(out, **options))
    assert "\n" not in str(caught.value)
    names = {file.name for file in out.iterdir()} if out.exists() else set()
    assert names <= {"confidence", *FILES, *(f"{name}.meta.json" for name in FILES)}


TEXTS = {
    "c": ("red", "Red.", "a red"),
    "w": ("blue", "pink", "", "no", "unknown pleasures"),
    "r": REFUSALS[:3],
}
THRESHOLDS = (
    st.tuples(st.integers(0, 10), st.integers(0, 10))
    .filter(lambda t: t[0] < t[1])
    .map(lambda t: Thresholds(t[1] / 10, t[0] / 10))
)
SETS = st.sampled_from([*TEMPLATES])
_SAMPLE = st.sampled_from([(o, text) for o, texts in TEXTS.items() for text in texts])


@st.composite
def any_line(draw, id="q", least=1):
    samples = draw(st.lists(_SAMPLE, min_size=least, max_size=10))
    answerable = draw(st.sampled_from([True, True, False, None]))
    answers = ["red"] if answerable else draw(st.sampled_from([[], ["red"]]))
    if not answers:
        samples = [("w" if o == "c" else o, text) for o, text in samples]
    outcomes = "".join(o for o, _ in samples)
    texts = [text for _, text in samples]
    return line(id, outcomes, samples=texts) | {"answerable": answerable, "answers": answers}


ANY_LINES = st.integers(0, 12).flatmap(lambda n: st.tuples(*(any_line(f"q{i}") for i in range(n))))
