import pytest

from inbol_jax.errors import InbolError
from inbol_jax.responses.config import EndpointConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "localhost:8000"}, "a base URL is needed"),
        ({"endpoint": "file:///etc/passwd"}, "a base URL is needed"),
        ({"endpoint": "http://h:port/v1"}, "a base URL is needed"),
        ({"endpoint": "http://a b/v1"}, "a base URL is needed"),
        ({"endpoint": "https://user:pw@host/v1"}, "no user, password or query"),
        ({"endpoint": "https://host/v1?key=1"}, "no user, password or query"),
        ({"endpoint_model": "m"}, "--endpoint-model m: give --endpoint as well"),
        ({"endpoint_retries": -1}, "--endpoint-retries -1: at least 0"),
        ({"endpoint_concurrency": 0}, "--endpoint-concurrency 0: at least 1"),
        ({"endpoint_timeout": 0.0}, "--endpoint-timeout 0.0"),
        ({"endpoint_timeout": float("nan")}, "--endpoint-timeout nan"),
    ],
)
def test_impossible_endpoint_options(options, message):
    with pytest.raises(InbolError, match=message):
        EndpointConfig(**options)
