from pathlib import Path

import pytest

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.config import AuditConfig, ExtrinsicConfig
from inbol_jax.extrinsic.extrinsic import extrinsic
from inbol_jax.responses.config import EndpointConfig

ENDPOINT = EndpointConfig(endpoint="http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"share": share}, "--share") for share in (0, -1, 1.5, float("nan"))),
        ({"filters": ("answered",)}, "--filters answered: needs --model"),
        ({"language": "klingon"}, "--language klingon: choose auto or one of en, de"),
        ({"turns": (1, 0)}, "--turns: at least 1 for each"),
        ({"agreement": 0.5}, "--agreement 0.5: more than 0.5"),
        ({"model_samples": 0}, "--model-samples 0: at least 1"),
        ({"batch_size": 0}, "--batch-size 0: at least 1"),
        ({"endpoint": ENDPOINT}, "--endpoint: only the generator model_written asks it"),
        ({"endpoint": ENDPOINT, "generators": ("model_written",)}, "--endpoint-model"),
    ],
)
def test_extrinsic_options_that_cannot_be(tmp_path, options, message):
    with pytest.raises(InbolError, match=message):
        extrinsic(ExtrinsicConfig(tmp_path, tmp_path / "out", **options))


def test_audit_options_that_cannot_be():
    with pytest.raises(InbolError, match="--samples -1"):
        AuditConfig(Path("run"), samples=-1)
