"""Web addresses that model files may be fetched from."""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

_ADDRESS = re.compile(r"[!-~]{1,2000}")


def address_fault(url: str) -> str | None:
    """Return the reason why a model must not be fetched from `url`, None if it may."""
    if not _ADDRESS.fullmatch(url):
        return "an address must be plain ASCII without spaces"
    try:
        parts: SplitResult = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port  # raises ValueError for an invalid port
    except ValueError as error:
        return f"not an address: {error}"
    if not host or parts.username is not None or parts.password is not None:
        return "an address must have a host and no user name"
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return None
    return "an address must start with https:// (http:// on this machine itself)"


def _is_loopback(host: str) -> bool:
    """Return True if `host` is this machine: localhost or a loopback IP address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
