import shutil

import jax
import pytest
from torch_reference import CASES, LLAVA, RANDOM, load, make_batch, random_torch, with_adapters

from inbol_jax.models import LoraConfig, save_pretrained

FAMILIES = (
    "clip llama biases, linear rope, full, relu",
    "siglip qwen2 window above, full, ragged patches",
    pytest.param("clip mistral window", marks=pytest.mark.slow),
)


def saved_random(name, tmp_path_factory):
    """A random model of transformers, and the folder that it saved itself in."""
    model, folder = random_torch(name), tmp_path_factory.mktemp("random")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module", params=RANDOM)
def random_pair(request, tmp_path_factory):
    return saved_random(request.param, tmp_path_factory)


@pytest.fixture(scope="module", params=LLAVA)
def llava_pair(request, tmp_path_factory):
    """The same, of LLaVA, whose keys have several spellings."""
    return saved_random(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
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


@pytest.fixture(params=["shipped", *CASES])
def model_of_ours(request, tiny, tmp_path):
    if request.param == "shipped":
        return tiny
    random_torch(request.param).save_pretrained(tmp_path)
    return load(tmp_path)


@pytest.fixture(params=FAMILIES, scope="module")
def base(request, tmp_path_factory):
    """The folder of a random model of each decoder."""
    return saved_random(request.param, tmp_path_factory)[1]


@pytest.fixture
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
