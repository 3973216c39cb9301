"""Hostile inputs for every command: `python tests/fuzz.py --n 2000 --seed 0`.

Options, files and an endpoint's replies are damaged at random. A command must then do its work or
end with exit code 2 and one line on standard error; no traceback, nothing that takes long, and
every record of a dataset is either read or counted as set aside. `--only I` runs one input again.
"""

import argparse
import collections
import contextlib
import copy
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
from unittest import mock

from command_lines import option_names
from endpoint_server import KEY, Server, asked, said

from inbol_jax.artifacts import read_jsonl
from inbol_jax.cli import main
from inbol_jax.commands import COMMANDS, load
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.defaults import TINY

LIMIT = 60  # seconds of a processor for one input, so that a busy machine changes nothing
VALUES = [
    None, True, 0, -1, 1.5, 1e308, 10**20, 10**400, 2**63, "", " ", "\0", "a" * 300, "../../x",
    "/etc/passwd", "\ud800", "\u202e\x1b[31m", "NaN", "{{ 1/0 }}", [], {}, [[]], {"a": 1}, [None],
    ["x"] * 1000, float("nan"), float("inf"), "<script>",
]  # fmt: skip
WORDS = [
    "", " ", "-1", "0", "nan", "inf", "1e999", "99999999999999999999", "x", "a" * 300, "../x", ".",
    "/dev/null", "\x1b[31m", "é", "--", "-", "1,2", "{}", "true", "None", "\udcff", "a/b", "1 2",
    "gs://x/y", "http://[", "base",
]  # fmt: skip
TOKENS = [
    b"[" * 2000, b"{\"a\":" * 2000, b"\\ud800", b"\xff\xfe", b"\0", b"NaN", b"1e999", b"9" * 5000,
    b"\n", b"\r", b"\xef\xbb\xbf", b'"', b"}", b"]", b",", b"\\", b"null",
]  # fmt: skip


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a place cut, repeated or filled with what parsers dislike."""
    for _ in range(rng.choice((1, 1, 3))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 4, 100))
        part = rng.choice((b"", data[at : at + length] * 3, rng.choice(TOKENS)))
        data = data[:at] + part + data[at + length :]
    return data[:at] if rng.random() < 0.1 else data


def damaged_value(value: object, rng: random.Random) -> object:
    """The value with something within it replaced or removed."""
    value = copy.deepcopy(value)
    parents = [value]
    for parent in parents:
        children = parent.values() if isinstance(parent, dict) else parent
        parents += [child for child in children if isinstance(child, dict | list) and child]
    for _ in range(rng.choice((1, 1, 3))):
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


def is_json(line: bytes) -> bool:
    """Whether it is a whole object or list."""
    try:
        return isinstance(json.loads(line), dict | list)
    except ValueError:
        return False


def damage(file: Path, rng: random.Random) -> None:
    """Damages a file: one of its lines of JSON, or its bytes."""
    data = file.read_bytes()
    lines = data.splitlines(keepends=True) if file.suffix == ".jsonl" else [data]
    at = rng.randrange(len(lines))
    if rng.random() < 0.7 and is_json(lines[at]):  # it may be damaged already
        lines[at] = json.dumps(damaged_value(json.loads(lines[at]), rng)).encode() + b"\n"
        data = b"".join(lines)
    elif file.suffix == ".safetensors":  # all that matters is in its first bytes
        data = damaged_bytes(data[: rng.choice((8, 400, 20_000))], rng) + data[20_000:]
    else:
        data = damaged_bytes(data, rng)
    file.write_bytes(data)


class Inputs:
    """Sound files, made by the commands themselves, and one function per kind of input, which
    returns the words of a command and what must hold after it."""

    def __init__(self, clean: Path):
        self.clean, self.data, self.out = clean, clean / "data", clean / "out"
        run("world", "export", "--out", self.data, "--n", 16)
        gold = {row["question"]: row["answers"] for row in read_jsonl(self.data / "data.jsonl")}

        def answer(body, n):
            """Right more or less often, by the question."""
            right = (a for q, a in gold.items() if q in asked(body)[0] and n % 10 < len(q) % 11)
            return said(*next(right, ["xyz"]))

        self.server = Server(answer)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        shutil.copytree(TINY, clean / "model")
        rows = [f"{i},{i}.png,What?,red\n" for i in range(12)]
        sound = (
            ("confidence", "--data", self.data, "--out", self.out, *self.endpoint()),
            ("build", "--out", self.out),
            ("extrinsic", "--data", self.data, "--out", self.out, "--share", 0.5),
            ("convert", clean / "model", clean / "converted"),
        )
        for words in sound:
            code, error = run(*words)
            assert code == 0, (words, error)
        shutil.copytree(self.data / "images", clean / "pictures")
        pictures = sorted((clean / "pictures").iterdir())
        for i, picture in enumerate(pictures):
            picture.rename(clean / "pictures" / f"{i}.png")
        (clean / "flat.csv").write_text("question_id,image,question,answers\n" + "".join(rows))

    def endpoint(self):
        """Options by which this machine's server answers."""
        retries = ("--endpoint-retries", 0, "--endpoint-timeout", 5)
        return ("--endpoint", self.server.url, "--endpoint-model", "m", *retries)

    def take(self, place: Path, rng: random.Random, name: str, hurt: str = "*") -> Path:
        """Copies a file or folder to the place and damages a file of it whose name matches."""
        source = self.clean / name
        copied = (shutil.copytree if source.is_dir() else shutil.copy)(source, place / name)
        files = sorted(f for f in place.rglob(hurt) if f.is_file() and f.suffix != ".png")
        damage(rng.choice(files), rng)
        return Path(copied)

    def options(self, rng, place):
        """A command with sound files where that is cheap, and one to three foolish options."""
        name = rng.choice([name for name in COMMANDS if name not in ("plan", "demo")])
        empty, on_data = place / "empty", ("--data", self.data, "--model", place / "empty")
        sound = {
            "data check": ("--data", self.data),
            "data import": ("--id", self.clean / "flat.csv"),
            "world export": ("--n", 3),
            "extrinsic": ("--data", self.data),
            "evaluate": ("--in-domain", self.data, "--models", "m", empty),
            "convert": (empty, place / "converted"),
        } | dict.fromkeys(("calibrate", "confidence", "rl"), on_data)
        out = place / "out"
        if name in ("build", "audit"):
            shutil.copytree(self.out, out)
        words = [*name.split(), *sound.get(name, ())]
        words += () if name == "convert" else ("--out", out)
        known = option_names(load(COMMANDS[name].config))
        known = [o for o in known if o not in ("--out", "--distributed", "--steps")]
        for option in rng.choices(known, k=rng.choice((1, 1, 2, 3))):
            words += [option, *rng.choices(WORDS, k=rng.choice((1, 1, 1, 0, 2)))]
        return words, None

    def dataset(self, rng, place):
        data = self.take(place, rng, "data", hurt="data.jsonl*")

        def counted():
            content = (data / "data.jsonl").read_bytes()
            lines = [line for line in content.split(b"\n") if line.strip()]
            found = load_dataset_folder(data, max_rejected=1.0)
            assert len(found.examples) + len(found.rejected) == len(lines), "records are lost"
            assert len(list(found.examples)) == len(found.examples)

        name = rng.choice(("data check", "data check", "extrinsic"))
        return [*name.split(), "--data", data, "--out", place / "o", "--max-rejected", 1], counted

    def imported(self, rng, place):
        words = ["data", "import", "--format", "columns", "--out", place / "o"]
        words += ["--id", self.take(place, rng, "flat.csv"), "--max-rejected", 1]
        return [*words, "--images", self.clean / "pictures"], None

    def stores(self, rng, place):
        out = self.take(place, rng, "out", hurt="*.json*")
        extrinsic = ["extrinsic", "--data", self.data, "--share", 0.5]
        return [*rng.choice((["build"], ["audit"], extrinsic)), "--out", out], None

    def training(self, rng, place):
        name, file = rng.choice([("sft", "instructions.jsonl"), ("dpo", "preferences.jsonl")])
        out = self.take(place, rng, "out", hurt=f"{file}*")
        words = [name, "--data", out / file, "--out", place / "o", "--images", self.data]
        return [*words, "--model", place], None

    def checkpoint(self, rng, place):
        return ["convert", self.take(place, rng, "model", "*[!d]"), place / "converted"], None

    def reply(self, rng, place):
        text = rng.choice(["ANSWER", KEY, "\ud800", "\0\x1b[2J", "x" * 10**6, ""])
        sound = json.dumps(said(text, "red", scored=rng.random() < 0.7)[1]).encode()
        body = json.dumps(damaged_value(json.loads(sound), rng)).encode()
        body = rng.choice([body, damaged_bytes(sound, rng)])
        status = rng.choice((200, 200, 200, 400, 401, 404, 302, 500, 204))
        replies = [(status, body, {}), None, *[said("ANSWER")] * rng.choice((1, 20, 100))]
        self.server.reply = lambda *_: rng.choice(replies)
        command = rng.choice((("confidence", "--data"), ("evaluate", "--in-domain")))
        words = [*command, self.data, "--n", 3, "--out", place / "o", *self.endpoint()]

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


def fault_of(words, check) -> tuple[int | None, str]:
    """The exit code of a command, and what is wrong with how it ended; "" if nothing is."""

    def too_slow(*_):
        raise TooSlow

    code, before = None, signal.signal(signal.SIGPROF, too_slow)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        code, error = run(*words)
        refusals = [line for line in error.splitlines() if line.startswith("error: ")]
        if code not in (0, 2) or (code == 2) != (len(refusals) == 1):
            return code, f"exit code {code} with {error[-300:]!r}"
        if KEY in error:
            return code, "the key leaks"
        if code == 0 and check:
            with contextlib.redirect_stdout(io.StringIO()):
                check()
    except TooSlow:
        return code, f"took more than {LIMIT} s of a processor"
    except Exception:
        return code, traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return code, ""


def fuzz(n: int, seed: int, only: int | None = None) -> int:
    """Prints what became of n inputs. Returns how many were at fault."""
    codes, faults, start = collections.Counter(), 0, time.monotonic()
    environment = {"OPENAI_API_KEY": KEY, "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
    with mock.patch.dict(os.environ, environment), tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(Path(folder))
        for number in range(n) if only is None else [only]:
            rng = random.Random(f"{seed}:{number}")  # an input depends on seed and number alone
            kind = KINDS[number % len(KINDS)]
            with tempfile.TemporaryDirectory() as place:
                words, check = getattr(inputs, kind)(rng, Path(place))
                code, fault = fault_of(words, check)
            codes[kind, code] += 1
            if fault:
                faults += 1
                print(f"--seed {seed} --only {number}: {[*map(str, words)]}\n{fault}", flush=True)
        inputs.server.shutdown()
        inputs.server.server_close()
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
