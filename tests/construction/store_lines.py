"""Lines of confidence stores, for the tests of what reads them."""

from inbol_jax.artifacts import write_jsonl

OUTCOME = {"c": "correct", "w": "wrong", "r": "refused"}


def line(id, outcomes, *, answerable=True, **changes):
    """A line of a confidence store; outcomes by letter: c, w or r."""
    wrong = iter(
        ("blue", "pink", "blue", "blue", "green", "pink", "blue", "blue", "blue", "pink") * 2
    )
    texts = [{"c": "red", "r": "I cannot tell."}.get(o) or next(wrong) for o in outcomes]
    row = {
        "id": id,
        "image": f"images/{id}.png",
        "question": f"What color is thing {id}?",
        "answers": ["red"] if answerable else [],
        "answerable": answerable,
        "samples": texts,
        "logprobs": [-1.0] * len(texts),
        "token_counts": [2] * len(texts),
        "outcomes": [OUTCOME[o] for o in outcomes],
        "n_correct": outcomes.count("c"),
        "n_samples": len(texts),
        "fingerprint": "f",
    }
    return row | changes


def store(out, name, rows, **header):
    """Writes a finished store into `out`/confidence."""
    (out.parent / "data").mkdir(exist_ok=True, parents=True)
    write_jsonl(
        out / "confidence" / f"{name}.jsonl", rows, {"model": "m1", "images": "../../data"} | header
    )
