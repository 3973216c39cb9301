"""Options of what asks an endpoint."""

import dataclasses
import re
from typing import Annotated, Literal

from inbol_jax.defaults import Bounded, Bounds, NumRequests, Positive
from inbol_jax.errors import InbolError

# What is asked of every endpoint that samples, though not all know it.
RequestField = Literal["n", "seed", "logprobs", "top_k", "min_p", "repetition_penalty"]
ENDPOINT = "endpoint:"  # stands before the name of an endpoint's model, in --models and in headers
_BASE_URL = re.compile(r"https?://(\[[\da-fA-F:.]+\]|[\w.-]+)(:\d+)?(/[^\s?#]*)?")


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
    endpoint_without: tuple[RequestField, ...] = ()
    """Fields of a request for samples that the endpoint rejects, or takes in its own way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.endpoint and not _BASE_URL.fullmatch(self.endpoint):
            raise InbolError(  # the URL is not quoted: it may hold a password
                "--endpoint: a base URL is needed, such as http://localhost:8000/v1, without user, "
                "password and query; the key is read from the environment variable of "
                "--endpoint-key"
            )
        if self.endpoint_model and not self.endpoint:
            raise InbolError(f"--endpoint-model {self.endpoint_model}: give --endpoint as well")
