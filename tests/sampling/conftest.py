import pytest

from inbol_jax.data.vqa import load_dataset_folder


@pytest.fixture(scope="module")
def questions(small_world):
    return load_dataset_folder(small_world / "test").examples


@pytest.fixture(scope="module")
def images(small_world):
    return small_world / "test"
