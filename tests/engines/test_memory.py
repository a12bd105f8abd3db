"""Memory that the process may use: the machine's, that of control groups, and its own limit."""

import subprocess
import sys
from pathlib import Path

import pytest

from matir_cli.engines.memory import available_memory

GIB = 1 << 30


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write a machine with 8 GiB of available memory and the given files below sys/fs/cgroup."""
    contents = {
        "proc/meminfo": f"MemTotal: 16 kB\nMemAvailable: {8 * GIB >> 10} kB\n",
        "proc/self/cgroup": groups,
    }
    contents |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(folder: str, limit: str, used: int, cached: int = 0) -> dict[str, str]:
    names = {
        "memory.max": limit,
        "memory.current": str(used),
        "memory.stat": f"anon 5\ninactive_file {cached}\n",
    }
    return {f"{folder}{name}": text for name, text in names.items()}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 8 * GIB),
        ("0::/\n", v2("", "max", GIB), 8 * GIB),
        ("0::/\n", v2("", str(4 * GIB), GIB), 3 * GIB),
        ("0::/\n", v2("", str(4 * GIB), 3 * GIB, 2 * GIB), 3 * GIB),
        ("0::/a/b\n", v2("a/b/", "max", GIB) | v2("a/", str(2 * GIB), GIB), GIB),
        ("0::/gone/../x\n", v2("", str(GIB), 2 * GIB), 0),
        (
            "12:cpu,memory:/jobs\n0::/\n",
            {
                "memory/jobs/memory.limit_in_bytes": str(5 * GIB),
                "memory/jobs/memory.usage_in_bytes": str(GIB),
                "memory/memory.limit_in_bytes": str((1 << 63) - 4096),
                "memory/memory.usage_in_bytes": str(9 * GIB),
            },
            4 * GIB,
        ),
        ("nonsense\n:::\n", {"memory.max": "many", "memory.current": ""}, 8 * GIB),
    ],
)
def test_the_least_of_machine_and_control_groups(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert available_memory(machine(tmp_path, groups, files)) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of address space")
def test_a_limit_of_address_space_counts() -> None:
    program = (
        "import resource; from matir_cli.engines.memory import available_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); print(available_memory())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert 0 < int(done.stdout) < 1 << 30
