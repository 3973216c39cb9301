"""Hostile inputs for every command: `python tests/fuzz.py --n 2000 --seed 0`.

Options, data files, stores, training files, checkpoints and an endpoint's replies are damaged at
random. A command must then do its work or end with exit code 2 and one line on standard error;
no traceback, nothing that takes long, and every record of a dataset is either read or counted as
set aside. `--only I` runs one input again.
"""

import argparse
import collections
import contextlib
import copy
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from endpoint_server import KEY, Server, said
from PIL import Image

from inbol_jax.artifacts import read_jsonl
from inbol_jax.cli import main, option_names
from inbol_jax.commands import COMMANDS, load
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.defaults import TINY

LIMIT = 60  # seconds of a processor for one input, so that a busy machine changes nothing
VALUES = [
    None, True, 0, -1, 1.5, 1e308, 10**20, 10**400, 2**63, "", " ", "\0", "a" * 300, "../../x",
    "/etc/passwd", "\ud800", "\u202e\x1b[31m", "NaN", "{{ 1/0 }}", "%s%n", [], {}, [[]], {"a": 1},
    [None], ["x"] * 1000, float("nan"), float("inf"), "<script>", "é" * 200,
]  # fmt: skip
WORDS = [
    "", " ", "-1", "0", "nan", "inf", "1e999", "1e-999", "99999999999999999999", "0x10", "x",
    "a" * 300, "../x", ".", "/dev/null", "/proc/self/mem", "\x1b[31m", "é", "--", "-", "1,2", "{}",
    "true", "None", "\udcff", "a/b", "1 2", "gs://x/y", "http://[", "base",
]  # fmt: skip
TOKENS = [
    b"[" * 2000, b"{\"a\":" * 2000, b"\\ud800", b"\xff\xfe", b"\0", b"NaN", b"1e999", b"9" * 5000,
    b"\n", b"\r", b"\xef\xbb\xbf", b'"', b"}", b"]", b",", b"\\", b"\xed\xa0\x80", b"null", b"-",
]  # fmt: skip


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few places flipped, cut, repeated or filled with what parsers dislike."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 4, 100))
        part = data[at : at + length]
        part = rng.choice((bytes(b ^ 1 << rng.randrange(8) for b in part), b"", part * 3))
        if rng.random() < 0.5:
            part = rng.choice(TOKENS) + part
        data = data[:at] + part + data[at + length :]
        if rng.random() < 0.1:
            data = data[:at]
    return data


def damaged_value(value: object, rng: random.Random) -> object:
    """The value with something within it replaced or removed."""
    value = copy.deepcopy(value)
    parents = [value]
    for parent in parents:
        children = parent.values() if isinstance(parent, dict) else parent
        parents += [child for child in children if isinstance(child, dict | list) and child]
    for _ in range(rng.choice((1, 1, 2, 4))):
        parent = rng.choice(parents)
        if not parent:
            return rng.choice(VALUES)
        key = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        if rng.random() < 0.25:
            del parent[key]
        else:
            others = parent.values() if isinstance(parent, dict) else parent
            parent[key] = rng.choice([*VALUES, *others])
    return value


def damage(file: Path, rng: random.Random) -> None:
    """Damages a file: its JSON, or one of its lines of JSON, or its bytes."""
    data = file.read_bytes()
    with contextlib.suppress(ValueError, TypeError):
        if rng.random() < 0.7 and data[:1] in b"[{":
            if file.suffix == ".jsonl":
                lines = data.splitlines(keepends=True)
                for _ in range(rng.choice((1, 2))):
                    at = rng.randrange(len(lines))
                    value = damaged_value(json.loads(lines[at]), rng)
                    lines[at] = json.dumps(value).encode() + b"\n"
                data = b"".join(lines)
            else:
                data = json.dumps(damaged_value(json.loads(data), rng)).encode()
            file.write_bytes(data)
            return
    if file.suffix == ".safetensors":  # all that matters is in its first bytes
        data = damaged_bytes(data[: rng.choice((8, 400, 20_000))], rng) + data[20_000:]
    file.write_bytes(damaged_bytes(data, rng) if file.suffix != ".safetensors" else data)


class Inputs:
    """The sound files that are damaged, and one function per kind of input.

    Each returns the words of a command and what must hold after it.
    """

    def __init__(self, clean: Path):
        self.clean = clean
        run("world", "export", "--out", clean / "data", "--n", "16")
        store = []
        for i, row in enumerate(read_jsonl(clean / "data/data.jsonl")):
            right = i % 11
            texts = row["answers"][:1] * right + [f"x{j}" for j in range(right, 10)]
            row |= {"samples": texts, "logprobs": [-1.0] * 10, "token_counts": [2] * 10}
            row["outcomes"] = ["correct"] * right + ["wrong"] * (10 - right)
            row["samples_cut"] = [False] * 10
            store.append(row | {"n_correct": right, "n_samples": 10, "fingerprint": "f"})
        self._write("out/confidence/data.jsonl", store, config="f", rows=16, set_aside=0)
        run("build", "--out", clean / "out")
        run("extrinsic", "--data", clean / "data", "--out", clean / "out", "--share", "0.5")
        questions = [{"question_id": i, "image_id": i, "question": "What?"} for i in range(12)]
        ten = [{"answer": "red"}] * 10
        answers = [{"question_id": i, "image_id": i, "answers": ten} for i in range(12)]
        (clean / "q.json").write_text(json.dumps({"questions": questions}))
        (clean / "a.json").write_text(json.dumps({"annotations": answers}))
        flat = [q | {"image": f"{i}.png", "answers": ["red"]} for i, q in enumerate(questions)]
        self._write("flat.jsonl", flat)
        (clean / "flat.csv").write_text("question_id,image,question,answers\n" + "".join(
            f"{i},{i}.png,What?,red\n" for i in range(12)))  # fmt: skip
        (clean / "pictures").mkdir()
        for i in range(12):
            for name in (f"{i}.png", f"COCO_train2014_{i:012}.jpg"):
                Image.new("RGB", (4, 4)).save(clean / "pictures" / name)
        shutil.copytree(TINY, clean / "model")
        run("convert", clean / "model", clean / "converted")  # imports JAX and transformers
        self.server = Server(lambda body, n: said("ANSWER"))
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def _write(self, name, lines, **header):
        file = self.clean / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in lines))
        if header:
            file.with_name(f"{file.name}.meta.json").write_text(json.dumps(header))

    def _take(self, place: Path, rng: random.Random, *names: str, hurt: str = "*") -> None:
        """Copies files or folders to the place and damages one whose name matches."""
        for name in names:
            copied = shutil.copytree if (self.clean / name).is_dir() else shutil.copy
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            copied(self.clean / name, place / name)
        files = sorted(f for f in place.rglob(hurt) if f.is_file() and f.suffix != ".png")
        damage(rng.choice(files), rng)

    def options(self, rng, place):
        """A command with sound files where that is cheap, and one to three foolish options."""
        name = rng.choice([name for name in COMMANDS if name not in ("plan", "demo")])
        empty = place / "empty"
        sound = {
            "data check": ("--data", self.clean / "data"),
            "data import": ("--data.id", self.clean / "flat.jsonl"),
            "world export": ("--n", 3),
            "extrinsic": ("--data", self.clean / "data"),
            "evaluate": ("--in-domain", self.clean / "data", "--models", "m", empty),
            "calibrate": ("--data", self.clean / "data", "--model", empty),
            "confidence": ("--data", self.clean / "data", "--model", empty),
            "sft": ("--data", self.clean / "out/instructions.jsonl", "--model", empty),
            "dpo": ("--data", self.clean / "out/preferences.jsonl", "--model", empty),
            "rl": ("--data", self.clean / "data", "--model", empty),
            "convert": (empty, place / "converted"),
        }  # fmt: skip
        out = place / "out"
        if name == "build" or name == "audit":
            shutil.copytree(self.clean / "out", out)
        words = [*name.split(), *sound.get(name, ())]
        words += () if name == "convert" else ("--out", out)
        config = load(COMMANDS[name].config)
        known = [o for o in option_names(config) if o not in ("--out", "--distributed", "--steps")]
        for option in rng.choices(known, k=rng.choice((1, 1, 2, 3))):
            words += [option, *rng.choices(WORDS, k=rng.choice((1, 1, 1, 0, 2)))]
        return words, None

    def dataset(self, rng, place):
        self._take(place, rng, "data", hurt="data.jsonl*")

        def counted():
            file = place / "data/data.jsonl"
            lines = [line for line in file.read_bytes().split(b"\n") if line.strip()]
            found = load_dataset_folder(place / "data", max_rejected=1.0)
            assert len(found.examples) + len(found.rejected) == len(lines), "records are lost"
            assert len(list(found.examples)) == len(found.examples)

        check = ("data", "check")
        words = [*rng.choice([check, ("extrinsic",), ("confidence", "--status"), check])]
        words += ["--data", place / "data", "--out", place / "o", "--max-rejected", 1]
        return words, counted

    def imported(self, rng, place):
        sets = [("vqav2", "q.json", "a.json"), ("columns", "flat.jsonl"), ("columns", "flat.csv")]
        layout, *names = rng.choice(sets)
        self._take(place, rng, *names)
        source = "--data.id" if layout == "columns" else "--data.questions"
        words = ["data", "import", "--data.format", layout, source, place / names[0]]
        words += ["--data.annotations", place / names[1]] if names[1:] else []
        words += ["--data.images", self.clean / "pictures", "--out", place / "o"]
        return [*words, "--max-rejected", 1], None

    def stores(self, rng, place):
        self._take(place, rng, "out", "data", hurt="*.json*")
        out = place / "out"
        commands = [
            ["build", "--out", out],
            ["audit", "--out", out],
            ["extrinsic", "--data", place / "data", "--out", out, "--share", 0.5],
        ]
        return rng.choice(commands), None

    def training(self, rng, place):
        name, file = rng.choice([("sft", "instructions.jsonl"), ("dpo", "preferences.jsonl")])
        self._take(place, rng, "out", hurt=f"{file}*")
        words = [name, "--data", place / "out" / file, "--out", place / "o"]
        return [*words, "--images", self.clean / "data", "--model", place], None

    def checkpoint(self, rng, place):
        self._take(place, rng, "model", hurt="*[!d]")
        return ["convert", place / "model", place / "converted"], None

    def reply(self, rng, place):
        text = rng.choice(["REFUSAL", "ANSWER", KEY, "\ud800", "\0\x1b[2J", "x" * 10**6, ""])
        sound = json.dumps(said(text, "red", scored=rng.random() < 0.7)[1]).encode()
        body = json.dumps(damaged_value(json.loads(sound), rng)).encode()
        body = rng.choice([body, damaged_bytes(sound, rng), damaged_bytes(body, rng)])
        status = rng.choice((200, 200, 200, 400, 401, 404, 302, 500, 204))
        good = said("ANSWER"), said("<think>a</think>red", "I don't know", scored=True)
        replies = [(status, body, {}), None, *good * rng.choice((1, 1, 20, 100))]
        self.server.reply = lambda *_: rng.choice(replies)
        commands = [
            ["confidence", "--data", self.clean / "data", "--n", 3, "--max-rejected", 1],
            ["evaluate", "--in-domain", self.clean / "data", "--n", 3],
        ]
        (words,) = rng.choices(commands, (2, 1))
        if words[0] == "confidence" and rng.random() < 0.3:
            words += ["--estimator", "likelihood"]
        words += ["--out", place / "o", "--endpoint-retries", 0, "--endpoint-timeout", 5]
        words += ["--endpoint", self.server.url, "--endpoint-model", "m"]

        def without_key():
            for file in (place / "o").rglob("*"):
                assert not file.is_file() or KEY.encode() not in file.read_bytes(), "the key leaks"

        return words, without_key


KINDS = ("options",) * 3 + (
    "dataset", "imported", "stores", "training", "checkpoint", "reply", "stores",
)  # fmt: skip


class TooSlow(BaseException):
    """An input took longer than `LIMIT`."""


def run(*words) -> tuple[int, str]:
    """The exit code of `inbol WORDS`, and what it wrote to standard error."""
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    return code, error.getvalue()


@dataclasses.dataclass
class Outcome:
    """What became of an input: `fault` is empty if all is well."""

    kind: str
    words: list[str]
    code: int | None = None
    fault: str = ""


def try_input(inputs: Inputs, seed: int, number: int) -> Outcome:
    """Runs one input, which depends on seed and number alone."""

    def too_slow(*_):
        raise TooSlow

    rng = random.Random(f"{seed}:{number}")
    kind = KINDS[number % len(KINDS)]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        words, check = getattr(inputs, kind)(rng, Path(folder))
        outcome = Outcome(kind, [str(word) for word in words])
        before = signal.signal(signal.SIGPROF, too_slow)
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        try:
            outcome.code, error = run(*words)
            refusals = [line for line in error.splitlines() if line.startswith("error: ")]
            if outcome.code not in (0, 2) or (outcome.code == 2) != (len(refusals) == 1):
                outcome.fault = f"exit code {outcome.code} with {error[-300:]!r}"
            elif KEY in error:
                outcome.fault = "the key leaks"
            elif outcome.code == 0 and check:
                check()
        except TooSlow:
            outcome.fault = f"took more than {LIMIT} s of a processor"
        except Exception:
            outcome.fault = traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)
    return outcome


@contextlib.contextmanager
def prepared():
    """`Inputs` in a temporary folder, with what they need of the environment."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        environment = {"OPENAI_API_KEY": KEY, "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        inputs = Inputs(Path(folder))
        try:
            yield inputs
        finally:
            inputs.server.shutdown()
            inputs.server.server_close()
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def fuzz(n: int, seed: int, only: int | None = None) -> int:
    """Prints what became of n inputs. Returns how many were at fault."""
    codes, faults, start = collections.Counter(), 0, time.monotonic()
    with prepared() as inputs:
        for number in range(n) if only is None else [only]:
            outcome = try_input(inputs, seed, number)
            codes[outcome.kind, outcome.code] += 1
            if outcome.fault:
                faults += 1
                about = f"--seed {seed} --only {number}: {outcome.words}"
                print(f"{about}\n{outcome.fault}", flush=True)
    for (kind, code), count in sorted(codes.items(), key=str):
        print(f"{kind:11} exit code {code}: {count}")
    print(f"{codes.total()} inputs, seed {seed}, {time.monotonic() - start:.0f} s: {faults} faults")
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    sys.exit(bool(fuzz(**vars(parser.parse_args()))))
