import shutil

import jax
import pytest
from torch_reference import CASES, load, make_batch, random_torch, with_adapters

from inbol_jax.models import LoraConfig, save_pretrained

FAMILIES = (
    "siglip qwen2 window above, full, ragged patches",
    pytest.param("clip llama tied, biases, linear rope, full", marks=pytest.mark.slow),
    pytest.param("clip mistral window", marks=pytest.mark.slow),
)


def saved_random(name, tmp_path_factory):
    """A random model of transformers, and the folder that it saved itself in."""
    model, folder = random_torch(name), tmp_path_factory.mktemp("random")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """The folder of a random model."""
    return saved_random("clip llama grouped", tmp_path_factory)[1]


@pytest.fixture
def broken(sound, tmp_path):
    """A copy of `sound` to break."""
    return shutil.copytree(sound, tmp_path / "broken")


@pytest.fixture
def split(sound, tmp_path):
    """The same checkpoint in several files."""
    save_pretrained(load(sound), tmp_path / "split", max_shard_size="20KB")
    return tmp_path / "split"


@pytest.fixture(scope="session", params=CASES)
def model_of_ours(request, tmp_path_factory):
    return load(saved_random(request.param, tmp_path_factory)[1])


@pytest.fixture(params=FAMILIES, scope="session")
def base(request, tmp_path_factory):
    """The folder of a random model of each decoder."""
    return saved_random(request.param, tmp_path_factory)[1]


@pytest.fixture(scope="session")
def batch(base):
    config = load(base).config
    return make_batch(config, [config.num_image_tokens + 4, config.num_image_tokens + 9])


@pytest.fixture
def saved(base, tmp_path):
    """The folder of an adapter of `base`."""
    adapter = with_adapters(base, LoraConfig(rank=2, targets=("q_proj",)))
    save_pretrained(adapter, tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def kernels_anywhere(monkeypatch):
    """What is asked of cuDNN, JAX's plain implementation of the same call computes.

    Returns the calls' arguments.
    """
    plain, calls = jax.nn.dot_product_attention, []

    def stand_in(q, k, v, **options):
        assert options.pop("implementation") == "cudnn"
        mask = options.get("mask")
        if mask is not None:  # cuDNN's backward pass takes nothing else
            assert mask.shape[-2:] == (q.shape[1], k.shape[1])
            assert q.shape[1] % 2 == k.shape[1] % 2 == 0
        calls.append(options)
        return plain(q, k, v, **options, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    return calls
