import pytest
from command_lines import QUICK, confidence


@pytest.fixture(scope="session")
def sampled(small_world, tmp_path_factory):
    """A finished store of the split `test`, without P(True). Its confidence/ is read-only."""
    out = tmp_path_factory.mktemp("sampled")
    assert confidence(small_world / "test", out, *QUICK) == 0
    return out
