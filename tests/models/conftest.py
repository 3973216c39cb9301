import shutil

import pytest
from torch_reference import RANDOM, load, random_torch


@pytest.fixture(scope="module", params=RANDOM)
def random_pair(request, tmp_path_factory):
    """A random model of transformers, and the folder that it saved itself in."""
    folder = tmp_path_factory.mktemp("random")
    model = random_torch(request.param)
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    random_torch("clip llama grouped").save_pretrained(folder)
    return folder


@pytest.fixture(params=["shipped", *RANDOM])
def model_of_ours(request, tiny, tmp_path):
    if request.param == "shipped":
        return tiny
    random_torch(request.param).save_pretrained(tmp_path)
    return load(tmp_path)


@pytest.fixture
def broken(sound, tmp_path):
    """A copy to break."""
    return shutil.copytree(sound, tmp_path / "broken")
