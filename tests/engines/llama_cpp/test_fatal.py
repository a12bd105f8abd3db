"""Fatal errors of llama.cpp end the process with one line and the exit code of an error."""

import subprocess
import sys

import pytest

from matir_cli.cli.exit_codes import ERROR
from matir_cli.engines.llama_cpp.fatal import EXIT_CODE

ABORT = r'_lib.ggml_abort(b"/build/ggml/src/ops.c", 12, b"GGML_ASSERT(%s) failed\n", b"eps >= 0")'

TERMINATE = "_lib._ZSt9terminatev()"


@pytest.mark.skipif(sys.platform == "win32", reason="C++ symbols have other names")
@pytest.mark.parametrize(
    ("call", "reason"),
    [(ABORT, "ops.c:12: GGML_ASSERT(eps >= 0) failed"), (TERMINATE, "it ran out of memory")],
)
def test_one_line_instead_of_an_abort(call: str, reason: str) -> None:
    program = f"import matir_cli.engines.llama_cpp.bindings as b; _lib = b.C._lib; print('before'); {call}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, text=True)
    assert done.returncode == EXIT_CODE == ERROR
    assert done.stdout == "before\n", "what was printed before is not lost"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"matir: llama.cpp cannot go on: {reason}")
    assert "matir models verify" in line
