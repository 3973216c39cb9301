import re

import pytest

from inbol_jax.errors import InbolError
from inbol_jax.world.config import ExportConfig
from inbol_jax.world.splits import Split


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "--n 0"),
        ({"n": -3}, "--n -3"),
        ({"split": Split.PRETRAIN}, "--split pretrain is an endless stream"),
        ({"type3": -0.5}, "--type3 -0.5"),
        ({"type3": float("nan")}, "--type3 nan"),
        ({"type3": 1e9}, "--type3 1000000000.0"),
        ({"type3": float("inf")}, "--type3 inf"),
    ],
)
def test_an_export_that_cannot_be(tmp_path, options, message):
    with pytest.raises(InbolError, match=re.escape(message)):
        ExportConfig(tmp_path, **options)


def test_the_default_share_of_type_3_is_that_of_the_split(tmp_path):
    assert ExportConfig(tmp_path).type3_per_answerable == 0
    assert ExportConfig(tmp_path, Split.TEST).type3_per_answerable == 0.5
    assert ExportConfig(tmp_path, type3=1.5).type3_per_answerable == 1.5
