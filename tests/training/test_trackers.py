"""Metrics reach the trackers, and a tracker that does not start is named."""

import functools
import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from training_data import metrics_of, run_sft

from inbol_jax.errors import InbolError


def events_of(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    return events.Reload()


def test_tensorboard(data, micro, tmp_path):
    options = {"report_to": ("tensorboard",), "batch_size": 4, "epochs": 3, "eval_steps": 6}
    run_sft(data, micro.path, tmp_path, eval_data=data / "instructions.jsonl", **options)
    events = events_of(tmp_path)
    rows = metrics_of(tmp_path)
    for name in ("loss", "eval/loss", "gradient_norm"):
        found = {e.step: make_ndarray(e.tensor_proto).item() for e in events.Tensors(name)}
        assert found == pytest.approx({row["step"]: row[name] for row in rows if name in row})


def test_weights_and_biases_which_is_not_installed_here(data, micro, tmp_path, monkeypatch):
    """A stand-in with the functions that are called: what reaches it, and that the run is closed
    also when training fails.
    """
    calls, name = [], "wandb"
    run = types.SimpleNamespace(
        log=lambda metrics, step: calls.append((step, metrics)),
        finish=lambda: calls.append("finished"),
    )
    stand_in = types.ModuleType(name)
    stand_in.init = lambda **options: calls.append(options) or run
    stand_in.log, stand_in.finish = run.log, run.finish
    monkeypatch.setitem(sys.modules, name, stand_in)
    train = functools.partial(run_sft, data, micro.path, report_to=(name,), batch_size=4, epochs=3)
    train(tmp_path)
    options, *logged, end = calls
    assert (options["project"], options["resume"]) == ("inbol_jax", "allow")
    assert options["config"]["batch_size"] == 4
    assert [step for step, _ in logged] == [row["step"] for row in metrics_of(tmp_path)]
    assert logged[-1][1]["loss"] == metrics_of(tmp_path)[-1]["loss"]
    assert end == "finished"
    assert options["config"]["out"] == str(tmp_path)
    calls.clear()
    train(tmp_path / "beside")
    assert calls[0]["id"] != options["id"], "the same settings in another folder are another run"

    def refuse(**options):
        raise RuntimeError("log in first\nlong story")

    stand_in.init = refuse
    with pytest.raises(InbolError, match=r"--report-to wandb: it does not start \(log in first\);"):
        train(tmp_path / "refused")
