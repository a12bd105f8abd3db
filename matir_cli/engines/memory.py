"""Main memory that this process may still use: of the machine, of its control groups, of its own limit."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 60
"""Bytes; version 1 of control groups writes "no limit" as a number of about this size."""


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that the process can still allocate without being stopped.

    The least of what Linux reports as available (elsewhere, of the machine's total memory), what the control
    groups of the process leave (a container's limit), and what its limit of address space leaves
    (`ulimit -v`).

    Args:
        root: folder with "proc" and "sys".
    """
    limits = [_machine_memory(root), *_group_memory(root)]
    address_space = _address_space(root)
    return max(0, min(limits if address_space is None else [*limits, address_space]))


def _machine_memory(root: Path) -> int:
    """Return the memory that the machine has available."""
    available = _read_field(root / "proc/meminfo", "MemAvailable:")
    if available is not None:
        return available * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _address_space(root: Path) -> int | None:
    """Return what the process's limit of address space leaves; None if there is no limit."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    used = _read_field(root / "proc/self/status", "VmSize:")
    return limit - (used or 0) * 1024


def _group_memory(root: Path) -> Iterator[int]:
    """Yield what each control group of the process, and each one around it, leaves; see cgroups(7)."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(errors="replace").splitlines():
            _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
            if controllers == "":
                mounted, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                mounted = root / "sys/fs/cgroup/memory"
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            # Inside a container the path may be that of the host, which is not mounted there.
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                left = _group_rest(mounted.joinpath(*parts[:depth]), *names)
                if left is not None:
                    yield left


def _group_rest(folder: Path, limit_file: str, usage_file: str, cache_field: str) -> int | None:
    """Return what one control group leaves; None if it sets no limit. Cached file pages count as free."""
    limit, used = _read_number(folder / limit_file), _read_number(folder / usage_file)
    if limit is None or used is None or limit >= _UNLIMITED:
        return None
    return limit - used + (_read_field(folder / "memory.stat", cache_field) or 0)


def _read_number(path: Path) -> int | None:
    """Return the number in a file; None if there is none, such as "max"."""
    try:
        return int(path.read_text(errors="replace"))
    except (OSError, ValueError):
        return None


def _read_field(path: Path, name: str) -> int | None:
    """Return the number after `name` in a file with one field per line; None if there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text(errors="replace").splitlines():
            if line.split(maxsplit=1)[:1] == [name]:
                return int(line.split()[1])
    return None
