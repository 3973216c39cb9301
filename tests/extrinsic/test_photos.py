"""Real pictures through generators, filters, audit, confidence and construction. photos.py says
what each of them shows."""

from collections import Counter

import numpy as np
import photos
import pytest

from inbol_jax.artifacts import read_jsonl, read_meta
from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.estimate import estimate
from inbol_jax.construction.build import BuildConfig, build
from inbol_jax.data.images import load_image
from inbol_jax.extrinsic.audit import AuditConfig, audit
from inbol_jax.extrinsic.extrinsic import ExtrinsicConfig, extrinsic, trail_file
from inbol_jax.extrinsic.generators import subject
from inbol_jax.records import PairKind

GENERATORS = ("unseeable", "mismatched", "false_premise", "beyond_frame", "evidence_removed")


def test_real_pictures(tmp_path):
    data = photos.write(tmp_path / "photos")
    options = {"share": 1.0, "generators": GENERATORS, "seed": 3}
    file = extrinsic(ExtrinsicConfig(data, tmp_path / "out", **options))
    rows, meta = list(read_jsonl(file)), read_meta(file)
    made = Counter(row["generator"] for row in rows)
    assert set(made) == set(GENERATORS)
    assert sum(made.values()) >= 20
    assert not meta["set_aside"]
    visible = {
        f"images/{name}": set(seen.split()) for name, (_, _, seen) in photos.PICTURES.items()
    }
    asked = {(f"images/{name}", question) for name, question, _, _ in photos.QUESTIONS}
    wrong = 0
    for row in rows:
        assert (row["image"], row["question"]) not in asked
        if row["generator"] in ("mismatched", "false_premise"):
            wrong += subject(row["question"]).split()[-1] in visible[row["image"]]
        elif row["generator"] == "unseeable":
            assert subject(row["question"]).split()[-1] in visible[row["image"]], row
        elif row["generator"] == "evidence_removed":
            names = row["removed"]["image"], row["image"]
            before, after = (load_image(data / name) for name in names)
            left, top, width, height = map(int, row["removed"]["boxes"][0])
            if row["removed"]["how"] == "crop":
                assert after.size != before.size
                continue
            part = (left, top, left + width, top + height)
            old, new = (np.asarray(image.crop(part), int) for image in (before, after))
            assert np.abs(new - old).mean() > 10, row
    # Without a list of objects it is a guess from what was asked that a thing is missing. With few
    # questions some guesses are wrong.
    assert wrong <= 0.4 * (made["mismatched"] + made["false_premise"])
    rejected = sum(n for name, n in meta["counts"].items() if not name.endswith("kept"))
    assert len(list(read_jsonl(trail_file(file)))) == rejected
    result = audit(AuditConfig(tmp_path / "out"))
    page = (tmp_path / "out/audit.html").read_text()
    assert result["text"] is not None
    assert page.count('src="data:image/png;base64,') == page.count("<article")


@pytest.mark.slow
def test_from_pictures_to_pairs(tmp_path):
    """The shipped model knows next to nothing of photographs; its colors are right now and then."""
    data, out = photos.write(tmp_path / "photos"), tmp_path / "out"
    file = extrinsic(ExtrinsicConfig(data, out, share=1.0, generators=GENERATORS, seed=3))
    for source in (data, file):
        estimate(ConfidenceConfig(source, out))
    build(BuildConfig(out, thresholds=Thresholds(delta_k=0.1, delta_uk=0.05)))
    names = ("records", "instructions", "preferences")
    records, instructions, pairs = (list(read_jsonl(out / f"{name}.jsonl")) for name in names)
    asked = {row["id"] for name in (data / "data.jsonl", file) for row in read_jsonl(name)}
    assert {r["id"] for r in records} == asked
    assert {r["type"] for r in records} == {1, 2, 3}
    assert {r["generator"] for r in records} == {None, *GENERATORS}
    assert {p["kind"] for p in pairs} == {kind.name.lower() for kind in PairKind}
    folder = out / read_meta(out / "preferences.jsonl")["images"]
    for line in instructions + pairs:
        assert load_image(folder / line["image"]).size
