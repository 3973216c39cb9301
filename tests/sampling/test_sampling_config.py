import pytest

from inbol_jax.errors import InbolError
from inbol_jax.sampling.config import SamplingOptions


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"n": 0}, "--n 0: at least 1 and at most 10,000 is needed"),
        ({"temperature": -0.1}, "--temperature -0.1: at least 0 is needed"),
        ({"temperature": float("nan")}, "--temperature nan: "),
        ({"top_p": 0.0}, "--top-p 0.0: more than 0 and at most 1"),
        ({"top_p": 1.01}, "--top-p 1.01: "),
        ({"max_new_tokens": 0}, "--max-new-tokens 0: at least 1 "),
        ({"top_k": -1}, "--top-k -1: at least 0 is needed"),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant(bad, message):
    with pytest.raises(InbolError, match=f"^{message}"):
        SamplingOptions(**bad)


def test_options_at_their_limits():
    SamplingOptions(temperature=0, top_p=1e-6, max_new_tokens=1, top_k=1)
