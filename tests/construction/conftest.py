import pytest
from store_lines import four_groups, store


@pytest.fixture
def out(tmp_path):
    """A folder with a finished store of `four_groups`."""
    store(tmp_path / "run", "train", four_groups())
    return tmp_path / "run"
