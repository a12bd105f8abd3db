"""Settings of a server."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Limits:
    """Times after which the server gives a client up."""

    request_seconds: float = 10.0
    """Time in which the head of a request must arrive, and then its content; also that between requests."""
    unheard_seconds: float = 30.0
    """Time after which a search of the HTTP API ends if nobody listens to it; browsers come back sooner."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Settings of a server."""

    gallery: Path
    models: str
    """Model set: its name, or the path of its TOML file."""
    device: str
    """Device that runs the models."""
    port: int = 0
    """Port of the HTTP API; 0: any that is free."""
    host: str = LOOPBACK
    """Address to listen at."""
    token: str | None = None
    """Token that requests by TCP must have."""
    idle_seconds: float = 900.0
    """Time without a search after which the models are freed."""
    limits: Limits = Limits()

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach the address `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
