"""Questions about pictures, as dataset folders: what is trained on, what is tested, what no picture
can answer (Type 3).

Two independent draws per thing, both by a hash of its name:
- its split. Questions about a thing, whatever picture shows it, are in one split only.
- how often the vision tower sees it in its own training: three in ten never, the others from hardly
  ever to often. This is what makes Known, Mixed and Unknown: names that the model has learnt well,
  badly, or not at all.

Type 3 questions are the ordinary questions of another picture ("Which food is this?" of a flag), or
of a picture that is so blurred that colours alone remain. Each text of a question comes equally
often with and without an answer, in proportion, so that the text alone gives nothing away.
"""

import dataclasses
import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from picture_objects import Picture, load, unreadable
from PIL import Image

from inbol_jax.artifacts import write_atomically

QUESTIONS = {
    "flag": ("Which country has this flag?", "Whose flag is this?"),
    "capital": ("What is the capital of the country with this flag?",),
    "food": ("Which food is this?", "What food do you see?"),
    "animal": ("Which animal is this?", "What animal do you see?"),
    "thing": ("What is this?", "What do you see?"),
    # Never trained on:
    "region": ("Which region has this flag?",),
    "vehicle": ("Which vehicle is this?",),
    "clothing": ("Which piece of clothing is this?",),
    "plant": ("Which plant is this?",),
    "instrument": ("Which instrument is this?",),
}
IN_DOMAIN = ("flag", "capital", "food", "animal", "thing")
KINDS_OUT = ("vehicle", "clothing", "plant", "instrument")
# Of whose pictures a question has no answer. A fish may be a food, so some pairs are left out.
LACKING = {
    "flag": ("food", "animal", "thing"),
    "capital": ("food", "animal", "thing"),
    "food": ("flag", "thing"),
    "animal": ("flag", "thing"),
    "region": ("food", "animal", "thing"),
    "vehicle": ("food", "animal", "flag"),
    "clothing": ("food", "animal", "flag"),
    "plant": ("animal", "flag"),
    "instrument": ("food", "animal", "flag"),
}
UNREADABLE_SHARE = 0.3  # of the Type 3 questions of a kind with an entry in LACKING; else all
STYLE_OUT = "facebook"  # the style of emoji that neither the tower nor the method is trained on
NEVER = 0.3  # share of the things that the tower never sees


def draw(thing: str, purpose: str) -> float:
    """A number in [0, 1) that depends on both texts alone."""
    digest = hashlib.sha256(f"{purpose}:{thing}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split_of(thing: str) -> str:
    """The split that a thing's questions are in."""
    u = draw(thing, "split")
    return "train" if u < 0.55 else "validation" if u < 0.7 else "test"


def exposure(thing: str) -> float:
    """How often the tower sees a thing, from 0 to 1. Kinds out of domain have theirs too."""
    u = draw(thing, "exposure")
    return 0.0 if u < NEVER or thing.startswith("region:") else ((u - NEVER) / (1 - NEVER)) ** 1.5


def shown_to_tower(pictures: Iterable[Picture]) -> list[tuple[Picture, float]]:
    """What the tower is trained on, with the weight of each picture."""
    weights = ((p, exposure(p.thing)) for p in pictures if p.source != STYLE_OUT)
    return [(picture, weight) for picture, weight in weights if weight > 0]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Answerable questions per set, and Type 3 questions per answerable one."""

    train: int
    validation: int
    test: int
    ood: int
    """Of each set out of domain."""
    type3: float = 0.4


def sets(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """{set: the pictures that its questions are about}."""
    capitals = [p._replace(kind="capital") for p in pictures if p.capital]
    known = [p for p in [*pictures, *capitals] if p.kind in IN_DOMAIN]
    own = [p for p in known if p.source != STYLE_OUT]
    test = {p.thing for p in own if split_of(p.thing) == "test"}
    return {
        **{s: [p for p in own if split_of(p.thing) == s] for s in ("train", "validation", "test")},
        "ood_style": [p for p in known if p.source == STYLE_OUT and p.thing in test],
        "ood_kinds": [p for p in pictures if p.kind in KINDS_OUT and p.source != STYLE_OUT],
        "ood_regions": [p for p in pictures if p.kind == "region"],
    }


def spread(pictures: Iterable[Picture], number: int, rng: random.Random) -> list[Picture]:
    """At most so many pictures, as many of each kind as there are, and things before their second
    picture."""
    kinds = defaultdict(list)
    for picture in pictures:
        kinds[picture.kind].append(picture)
    for kind, group in kinds.items():
        rng.shuffle(group)
        seen = Counter()
        turns = []
        for picture in group:
            turns.append((seen[picture.thing], len(turns)))
            seen[picture.thing] += 1
        kinds[kind] = [group[i] for _, i in sorted(turns, reverse=True)]
    taken = []
    while len(taken) < number and any(kinds.values()):
        for group in kinds.values():
            if group and len(taken) < number:
                taken.append(group.pop())
    return taken


def questions(
    about: Sequence[Picture], others: Sequence[Picture], number: int, type3: float, seed: str
) -> list[dict[str, Any]]:
    """The lines of a set, each with the key `picture` (index in about + others) and `blurred`.

    Args:
      about: the pictures that may be asked about.
      others: pictures that Type 3 questions may show beside these.
      number: of answerable questions.
      type3: Type 3 questions per answerable one.
    """
    rng = random.Random(seed)
    every = [*about, *others]
    place = {id(picture): i for i, picture in enumerate(every)}
    by_kind = defaultdict(list)
    for picture in every:
        by_kind[picture.kind].append(picture)
    lines, texts = [], defaultdict(list)
    for picture in spread(about, number, rng):
        asked = QUESTIONS[picture.kind]
        text = asked[len(texts[picture.kind]) % len(asked)]
        texts[picture.kind].append(text)
        lines.append(_line(picture, text, True, place, rng))
    for kind, asked in texts.items():
        n = round(type3 * len(asked))
        n_blurred = round(n * UNREADABLE_SHARE) if kind in LACKING else n
        for i in range(n):
            # An even stride over the texts keeps their shares.
            text = asked[i * len(asked) // n] if len(set(asked)) == 1 else asked[i % len(asked)]
            shown = (kind,) if i < n_blurred else LACKING[kind]
            picture = rng.choice(by_kind[rng.choice([k for k in shown if by_kind[k]])])
            line = _line(picture, text, False, place, rng)
            lines.append(line | {"kind": kind, "blurred": i < n_blurred})
    rng.shuffle(lines)
    return [line | {"id": f"{i:05d}"} for i, line in enumerate(lines)]


def right_answers(picture: Picture) -> list[str]:
    """The taught one first."""
    if picture.kind == "capital":
        return [picture.capital]
    return [picture.name, *picture.aliases]


def _line(
    picture: Picture, text: str, answerable: bool, place: dict[int, int], rng: random.Random
) -> dict[str, Any]:
    return {
        "question": text,
        "answers": right_answers(picture) if answerable else [],
        "answerable": answerable,
        "metric": "exact",
        "kind": picture.kind,
        "shows": picture.name,
        "shows_kind": picture.kind,
        "source": picture.source,
        "exposure": round(exposure(picture.thing), 3),
        "picture": place[id(picture)],
        "blurred": False,
    }


def write(
    folder: Path,
    pictures: Sequence[Picture],
    sizes: Sizes,
    seed: int,
    read: Callable[[Path], Image.Image] = load,
) -> None:
    """Writes a dataset folder per set; one that is there stays as it is."""
    groups = sets(pictures)
    own = [p for p in pictures if p.kind in IN_DOMAIN and p.source != STYLE_OUT]
    for name, about in groups.items():
        file = folder / name / "data.jsonl"
        if file.exists():
            continue
        others = []
        if name in ("ood_kinds", "ood_regions"):
            others = [p for p in own if split_of(p.thing) == "test"]
        number = getattr(sizes, name, sizes.ood)
        lines = questions(about, others, number, sizes.type3, f"{seed}:{name}")
        every = [*about, *others]
        for line in lines:
            blurred = line.pop("blurred")
            index = line.pop("picture")
            line["images"] = [f"images/{index}{'-blurred' if blurred else ''}.png"]
            target = folder / name / line["images"][0]
            if not target.exists():
                image = read(every[index].file)
                save(unreadable(image) if blurred else image, target)
        write_atomically(file, "".join(json.dumps(line) + "\n" for line in lines))


def save(image: Image.Image, file: Path) -> None:
    """As PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, "PNG")


def text_auc(train: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]) -> float:
    """How well the text alone tells Type 3: area under the ROC curve of a classifier that was
    fitted on the training questions. Equal scores count half."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline

    classifier = make_pipeline(CountVectorizer(ngram_range=(1, 3)), LogisticRegression())
    classifier.fit([line["question"] for line in train], [line["answerable"] for line in train])
    scores = classifier.predict_proba([line["question"] for line in lines])[:, 0]
    return float(roc_auc_score([not line["answerable"] for line in lines], scores.round(6)))
