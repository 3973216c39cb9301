"""Options of what asks an endpoint."""

import dataclasses
from typing import Annotated
from urllib.parse import urlsplit

from inbol_jax.defaults import Bounded, Bounds, NumRequests, Positive
from inbol_jax.errors import InbolError

ENDPOINT = "endpoint:"  # stands before the name of an endpoint's model, in --models and in headers


@dataclasses.dataclass(frozen=True)
class EndpointConfig(Bounded):
    """Which model behind an OpenAI-compatible endpoint is asked, and how patiently."""

    endpoint: str = ""
    """Base URL of an OpenAI-compatible API, such as http://localhost:8000/v1; empty for none."""
    endpoint_model: str = ""
    """Name of the model at the endpoint."""
    endpoint_key: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the API key. If it is not set, no key is sent."""
    endpoint_timeout: Positive = 60.0
    """Seconds to wait for an answer."""
    endpoint_retries: NumRequests = 5
    """Further attempts after status 408, 429 or 5xx, a timeout or a lost connection."""
    endpoint_concurrency: Annotated[NumRequests, Bounds(1)] = 4
    """Requests in flight at a time."""

    def __post_init__(self) -> None:
        if self.endpoint:
            self._check_url()
        elif self.endpoint_model:
            raise InbolError(f"--endpoint-model {self.endpoint_model}: give --endpoint as well")
        super().__post_init__()

    def _check_url(self) -> None:
        try:
            url = urlsplit(self.endpoint)
            usable = url.scheme in ("http", "https") and url.hostname and " " not in self.endpoint
            _ = url.port  # reading it raises ValueError if it is no number
        except ValueError:
            usable = False
        if not usable:
            raise InbolError(
                f"--endpoint {self.endpoint!r}: a base URL is needed, such as "
                "http://localhost:8000/v1"
            )
        if url.username or url.password or url.query or url.fragment:
            raise InbolError(
                "--endpoint: the URL must hold no user, password or query; put the key into the "
                "environment variable that --endpoint-key names"
            )
