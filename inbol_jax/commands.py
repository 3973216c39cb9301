"""The table of commands: where the options of each are declared, and which function takes them.

It holds names, so that neither help nor the demo imports what a command needs before it runs.
"""

import importlib
from typing import Any, NamedTuple


class Command(NamedTuple):
    """One command."""

    config: str  # "module:class" of its options
    run: str  # "module:function" that takes them, and the engine if there is one
    engine: str | None = None  # "module:function" that opens the model that it asks
    # Whether no process of several can go on after one has failed, as in training. In sampling,
    # each process finishes its own share.
    collective: bool = False

    def __call__(self, config: Any) -> Any:
        """Runs it on its options. Returns what its function returns."""
        given = [load(self.engine)(config)] if self.engine else []
        return load(self.run)(config, *given)


COMMANDS: dict[str, Command] = {
    "demo": Command("demo:DemoConfig", "demo:demo"),
    "data import": Command("data.config:ImportConfig", "data.importing:import_data"),
    "data check": Command("data.config:CheckConfig", "data.check:check_dataset"),
    "world export": Command("world.config:ExportConfig", "world.export:export"),
    "extrinsic": Command("extrinsic.config:ExtrinsicConfig", "extrinsic.extrinsic:extrinsic"),
    "audit": Command("extrinsic.config:AuditConfig", "extrinsic.audit:audit"),
    "confidence": Command(
        "confidence.config:ConfidenceConfig",
        "confidence.estimate:estimate",
        "sampling.engines:open_engine",
    ),
    "build": Command("construction.config:BuildConfig", "construction.build:build"),
    "probe": Command("evaluation.config:ProbeConfig", "evaluation.probe:probe"),
    "sft": Command("training.config:SftConfig", "training.sft:sft", collective=True),
    "dpo": Command("training.config:DpoConfig", "training.ca_dpo:ca_dpo", collective=True),
    "rl": Command("training.config:RlConfig", "training.rl:rl", collective=True),
    "evaluate": Command("evaluation.config:EvaluateConfig", "evaluation.evaluate:evaluate"),
    "calibrate": Command("evaluation.config:CalibrateConfig", "evaluation.calibrate:calibrate"),
    "convert": Command("models.convert:ConvertConfig", "models.convert:convert"),
}


def load(name: str) -> Any:
    """The object that "module:attribute" below this package names."""
    module, attribute = name.split(":")
    return getattr(importlib.import_module(f"inbol_jax.{module}"), attribute)


def run(name: str, config: Any) -> Any:
    """Runs the command of that name on its options. Returns what its function returns."""
    return COMMANDS[name](config)
