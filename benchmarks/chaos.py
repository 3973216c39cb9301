"""Every stage killed at random moments and started again until it is done: are its products those
of an undisturbed run, bit for bit?

    python benchmarks/chaos.py --kills 200 --seed 0 --out runs/chaos

SIGKILL, SIGTERM and SIGINT come in turn. Half of them come at random times, which the start of
Python takes up most of; the others when the stage evaluates, logs, saves or renames for the first,
second or third time. A stage that is done while it has kills left begins anew. The exit code is 1
if a product differs, a run ends with a traceback or an exit code that is not documented, training
that was interrupted has not saved its last finished step, or a temporary file is left.
"""

import dataclasses
import importlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import tyro

from inbol_jax.artifacts import hash64
from inbol_jax.defaults import TINY

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
SENT, STEPS = "the moment has come", "finished steps:"  # what a process that `until` runs says
# What the log holds beside the metrics that a run decides.
CLOCK = ("tokens_per_second", "save_seconds", "seconds")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A command to kill.

    Attributes:
      command: its words; {out} is its own folder, {whole} that of the undisturbed stages.
      products: patterns below {out}, of the files to compare.
      starts_with: the stages whose folders are copied into {out} before it starts.
      processes: how many processes run it together.
      moments: functions, "module:name", of which a call is a moment for a signal.
    """

    command: str
    products: tuple[str, ...]
    starts_with: tuple[str, ...] = ()
    processes: int = 1
    moments: tuple[str, ...] = ("os:replace", "inbol_jax.artifacts:write_json")


# Each reads what those above it have made; a later stage of the project is added here.
_TRAINING = "--save-steps 3 --batch-size 8 --epochs 2 --images {whole}/export --out {out}"
_TRAINED = ("model/*", "metrics.jsonl")
_TRAINER = "inbol_jax.training.trainer:"
_LOOP = (f"{_TRAINER}Trainer._write_row", f"{_TRAINER}Trainer._save", "os:replace", "os:rename")
# The second adds up what each batch of an evaluation gives.
_EVALUATION = (f"{_TRAINER}Trainer._evaluate", f"{_TRAINER}add_metrics")
_ASKING = ("inbol_jax.answers:AnswerStore.add", "os:fsync", "os:replace")
STAGES = {
    "export": Stage(
        "world export --split train --n 40 --out {out}", ("data.jsonl*", "images/*.png")
    ),
    "check": Stage("data check --data {whole}/export --out {out}", ("data.jsonl*", "check.json")),
    "extrinsic": Stage(
        "extrinsic --data {whole}/export --share 0.5 --out {out}", ("extrinsic*.jsonl",)
    ),
    "confidence": Stage(
        "confidence --data {whole}/export --n 4 --p-true --model {model} --out {out}",
        ("confidence/**/*.jsonl",),
        starts_with=("extrinsic",),
        moments=_ASKING,
    ),
    "build": Stage(
        "build --delta-uk 0.3 --delta-k 0.6 --out {out}",
        ("records.jsonl", "instructions.jsonl", "preferences.jsonl"),
        starts_with=("confidence",),
    ),
    "sft": Stage(
        f"sft --model {{model}} --data {{whole}}/build/instructions.jsonl {_TRAINING} "
        "--eval-data {whole}/build/instructions.jsonl --eval-steps 2",
        _TRAINED,
        moments=_LOOP + _EVALUATION,
    ),
    "dpo": Stage(
        f"dpo --model {{model}} --data {{whole}}/build/preferences.jsonl {_TRAINING} "
        "--eval-data {whole}/build/preferences.jsonl --eval-steps 2",
        (*_TRAINED, "reference.npy"),
        moments=_LOOP + _EVALUATION,
    ),
    "rl": Stage(
        "rl --model {model} --data {whole}/export {whole}/extrinsic/extrinsic.jsonl --n 4 "
        "--learning-rate 1e-3 --batch-size 8 --save-steps 4 --epochs 1 --out {out}",
        _TRAINED,
        moments=_LOOP,
    ),
    "convert": Stage("convert {model} {out}", ("*",)),
    "evaluate": Stage(
        "evaluate --in-domain {whole}/export --n 2 --models base {model} "
        "trained {whole}/sft/model --out {out}",
        ("predictions.jsonl", "answers/*/*.jsonl", "samples/*.jsonl"),
        moments=_ASKING,
    ),
    "calibrate": Stage(
        "calibrate --data {whole}/export --model {model} --out {out}",
        ("generation_config.json", "calibration.json", "calibration/*.jsonl"),
    ),
    "confidence-2": Stage(
        "confidence --distributed --data {whole}/export --n 4 --model {model} --out {out}",
        ("confidence/*.jsonl",),
        processes=2,
    ),
    "sft-2": Stage(
        f"sft --distributed --model {{model}} --data {{whole}}/build/instructions.jsonl "
        f"{_TRAINING}",
        _TRAINED,
        processes=2,
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Kill stages at random moments, and compare what they make."""

    kills: int = 200
    """Signals over all stages."""
    seed: int = 0
    """Seed of the moments, and of which process of several gets the signal."""
    stages: tuple[str, ...] = tuple(STAGES)
    """Stages to kill. Those that they read are run undisturbed."""
    model: Path = TINY
    """The checkpoint that is sampled and trained."""
    out: Path = Path("runs/chaos")
    """Folder of the runs. Undisturbed ones that are done are not run again."""


class Chaos:
    """The runs of one call of the script."""

    def __init__(self, config: Config):
        self.config, self.whole = config, config.out / "whole"
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        """Prints and counts what must not be."""
        self.faults.append(text)
        print(text, flush=True)

    def undisturbed(self, name: str) -> float:
        """Runs a stage unless it is done. Returns the seconds of a run with a warm cache."""
        done = self.config.out / f"{name}.seconds"
        if not done.exists():
            for _ in range(2):  # the first one compiles
                self.prepare(STAGES[name], self.whole / name)
                start = time.monotonic()
                codes, text = self.start(name, self.whole / name).wait(600)
                if any(codes):
                    sys.exit(f"{name} fails undisturbed: {codes}\n{text}")
                done.write_text(str(time.monotonic() - start))
        return float(done.read_text())

    def prepare(self, stage: Stage, out: Path) -> None:
        """An empty folder, but for what the stage starts with."""
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        for earlier in stage.starts_with:
            shutil.copytree(self.whole / earlier, out, dirs_exist_ok=True)

    def compare(self, name: str, out: Path) -> int:
        """Looks for products that are not those of the undisturbed stage, and for temporary files.

        Returns the number of such products.
        """
        whole, differing = self.whole / name, 0
        for pattern in STAGES[name].products:
            pairs = {p.relative_to(f) for f in (whole, out) for p in f.glob(pattern)}
            for path in sorted(p for p in pairs if not (whole / p).is_dir()):
                if content(whole / path) != content(out / path):
                    differing += 1
                    self.fault(f"{name}: {out / path} is not {whole / path}")
        for path in out.rglob(".*.tmp"):
            self.fault(f"{name}: {path} is left")
        return differing

    def look_for_last_step(self, label: str, out: Path, text: str) -> None:
        """Whether training that ended at a boundary has saved its last finished step."""
        if steps := re.search(rf"{STEPS} (\d+)", text):
            saved = [int(p.name) for p in (out / "checkpoints").iterdir() if p.name.isdigit()]
            if max(saved, default=0) != int(steps[1]):
                self.fault(f"{label}: step {steps[1]} is finished, and {saved} are saved\n{text}")

    def start(self, name: str, out: Path, moment: Iterable[str] = ()) -> "Run":
        """Starts the processes of a stage, the moment as `until` takes it."""
        words = STAGES[name].command.format(out=out, whole=self.whole, model=self.config.model)
        program = [__file__, "--until", *moment] if moment else ["-m", "inbol_jax"]
        return Run([*program, *words.split()], STAGES[name].processes, self.config.out / "cache")

    def kill(self, name: str, kills: int) -> str:
        """Kills a stage that often. Returns the line of the table."""
        stage = STAGES[name]
        out = self.whole / f"killed-{name}"  # beside it: headers hold paths to what was read
        seconds, draw = self.undisturbed(name), random.Random(hash64(f"{self.config.seed}:{name}"))
        order = draw.sample(SIGNALS, len(SIGNALS))
        counts, lives, restarts, differing = dict.fromkeys(SIGNALS, 0), 0, 0, 0
        while not lives or sum(counts.values()) < kills:
            self.prepare(stage, out)
            lives += 1
            while True:
                before = sum(counts.values())
                number, left = order[before % len(order)], before < kills
                moment: tuple[str, ...] = ()
                if left and stage.processes == 1 and draw.random() < 0.5:
                    moment = draw.choice(stage.moments), str(draw.randint(1, 3)), str(int(number))
                run, expected, ends = self.start(name, out, moment), (0,), (CODES[number], -number)
                if stage.processes > 1:  # a SIGINT becomes the notice that all of them get
                    ends += (CODES[signal.SIGTERM],)
                if left and not moment and run.lasts(draw.uniform(0, 1.1) * seconds):
                    run.send(draw.randrange(stage.processes), number)
                    expected = (0, *ends)
                codes, text = run.wait(600)
                if moment and SENT in text:
                    expected = (0, *ends)
                    self.look_for_last_step(f"{name}, {number.name} at {moment}", out, text)
                counts[number] += len(expected) > 1
                caught = "Traceback" in text or codes[run.target] not in expected
                if caught and not (len(expected) > 1 and interpreter_starts(text)):
                    self.fault(f"{name}, {number.name}: {codes}\n{text[-2000:]}")
                if not any(codes):
                    break
                if len(self.faults) > 20:
                    sys.exit("too many faults")
                restarts += 1
            differing += self.compare(name, out)
        sent = ", ".join(f"{number.name} {n}" for number, n in counts.items())
        return (
            f"{name:14} {sum(counts.values()):4} kills ({sent}), {restarts} restarts, {lives} "
            f"products, {differing} differences"
        )


class Run:
    """The processes of one command."""

    def __init__(self, words: list[str], processes: int, cache: Path):
        self.target = 0
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(cache.resolve()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PLATFORMS": "cpu",
            # Or else XLA sums in another order when a run is given other processors.
            "NPROC": "1",
        }
        if processes > 1:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                environment["JAX_COORDINATOR_ADDRESS"] = f"localhost:{free.getsockname()[1]}"
            environment["JAX_NUM_PROCESSES"] = str(processes)
        self._log = open(cache.parent / "log", "w+")  # noqa: SIM115
        # A background shell ignores SIGINT; children inherit that unless it is handled here.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._processes = [
            subprocess.Popen(
                [sys.executable, *words],
                env=environment | {"JAX_PROCESS_ID": str(i)} if processes > 1 else environment,
                stdout=self._log,
                stderr=self._log,
            )
            for i in range(processes)
        ]

    def lasts(self, seconds: float) -> bool:
        """Waits so long, or until the first process is done. Returns whether all still run."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._ended():
            time.sleep(0.005)
        return not self._ended()

    def _ended(self) -> bool:
        return any(process.poll() is not None for process in self._processes)

    def send(self, index: int, number: signal.Signals) -> None:
        """Sends a signal to one process."""
        self.target = index
        self._processes[index].send_signal(number)

    def wait(self, seconds: float) -> tuple[list[int], str]:
        """Exit codes and output. As a launcher does, it ends those that outlast the first one that
        failed by ten seconds."""
        end = time.monotonic() + seconds
        while any(process.poll() is None for process in self._processes):
            if any(process.returncode for process in self._processes):
                end = min(end, time.monotonic() + 10)
            if time.monotonic() > end:
                for process in self._processes:
                    process.kill()
            time.sleep(0.01)
        self._log.seek(0)
        text = self._log.read()
        self._log.close()
        return [process.returncode for process in self._processes], text


def until(place: str, call: str, number: str, *words: str) -> int:
    """Runs a command that sends itself a signal when it calls a function for the nth time, and then
    says so; of training it says at its end how many steps are finished.

    Args:
      place: the function, "module:name" or "module:class.name".
      call, number: which call of it, and which signal.
    Returns:
      the exit code of the command.
    """
    from inbol_jax.cli import main
    from inbol_jax.training.trainer import Trainer

    module, _, name = place.partition(":")
    *owners, name = name.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    function, calls, steps = getattr(owner, name), itertools.count(1), []
    end_step = Trainer._end_step

    def counted(*args, **kwargs):
        if next(calls) == int(call):
            print(SENT, file=sys.stderr, flush=True)
            os.kill(os.getpid(), int(number))
        return function(*args, **kwargs)

    def noted(trainer, metrics):
        steps.append(trainer.step + 1)
        end_step(trainer, metrics)

    setattr(owner, name, counted)
    Trainer._end_step = noted
    try:
        return main(words)
    finally:
        if steps:
            print(STEPS, steps[-1], file=sys.stderr, flush=True)


def interpreter_starts(text: str) -> bool:
    """Whether SIGINT ended Python before the package's first lines, which handle it, had run."""
    ours = re.findall(r"inbol_jax/(\S+)\.py", text)
    if "Fatal Python error: init_" in text:  # before there is any frame
        return not ours
    return text.rstrip().endswith("KeyboardInterrupt") and {*ours} <= {"__main__", "interruption"}


def with_what_they_read(names: Iterable[str]) -> list[str]:
    """The stages and those that they read, in the order of `STAGES`."""
    found = set(names)
    for name, stage in reversed(STAGES.items()):
        if name in found:
            found |= {*re.findall(r"{whole}/([\w-]+)", stage.command), *stage.starts_with}
    return [name for name in STAGES if name in found]


def content(path: Path) -> object:
    """What of a file must be the same: a store's lines come in any order, a log holds times."""
    if not path.exists():
        return None
    if path.name == "metrics.jsonl":
        rows = map(json.loads, path.read_text().splitlines())
        return [{k: v for k, v in row.items() if k not in CLOCK} for row in rows]
    if path.suffix == ".jsonl":
        return sorted(path.read_bytes().splitlines())
    return path.read_bytes()


def main(config: Config) -> int:
    """Prints the faults, a line per stage, and the number of faults. Returns the exit code."""
    chaos = Chaos(config)
    config.out.mkdir(parents=True, exist_ok=True)
    for name in with_what_they_read(config.stages):
        chaos.undisturbed(name)
    for i, name in enumerate(config.stages):
        share = (config.kills * (i + 1)) // len(config.stages) - config.kills * i // len(
            config.stages
        )
        print(chaos.kill(name, share), flush=True)
    print(f"{len(chaos.faults)} faults")
    return bool(chaos.faults)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--until"]:
        sys.exit(until(*sys.argv[2:]))
    sys.exit(main(tyro.cli(Config)))
