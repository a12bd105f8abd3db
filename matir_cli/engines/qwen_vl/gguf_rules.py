"""Rules for the keys and tensors of a GGUF file, and the checks that apply them.

llama.cpp refuses some invalid files with an error, and aborts the process for others. So every key that it
reads for the judge's architectures, and every tensor that its graphs use, is checked before it sees the file:
`text_rules` and `projector_rules` have the tables. The keys are those of `llama_model_base::load_hparams`,
`llama_vocab::impl::load` and `clip_model_loader::load_hparams` in the llama.cpp that llama-cpp-python 0.3.36
contains. A key that is not listed is not read, and may have any value.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matir_cli.engines.llama_cpp.gguf_header import GgufHeader, GgufTensor, GgufValue
from matir_cli.errors import CheckpointInvalid

_KIND_NAMES = {
    "u16": "an unsigned 16-bit number",
    "u32": "an unsigned 32-bit number",
    "i32": "a signed 32-bit number",
    "f32": "a 32-bit float",
    "bool": "true or false",
    "str": "a text",
    "[str]": "a list of texts",
    "[i32]": "a list of signed 32-bit numbers",
    "[f32]": "a list of 32-bit floats",
}

F32, BF16 = 0, 30
"""`GGML_TYPE_F32` and `GGML_TYPE_BF16` of ggml.h."""

MATRIX_TYPES = frozenset(
    {F32, 1, 2, 3, 6, 7, 8, *range(10, 15), *range(16, 24), 29, BF16, 34, 35, 39, 40, 41, 42}
)
"""Types of the numbers of a matrix: floats, and the quantised types that can be multiplied."""

PATCH_TYPES = frozenset({F32, 1, BF16})
"""Types of a patch embedding, which is a convolution."""

VECTOR_TYPES = frozenset({F32})
"""Type of norms and biases."""

FEW = 1 << 16
"""Upper bound of widths and lengths."""

MANY = (1 << 31) - 1
"""Upper bound of numbers that llama.cpp holds in 32 bits with a sign."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Type and range of a key; without a range, any value of the type."""

    kind: str
    least: float = -math.inf
    """Smallest number; of a list, of each element."""
    most: float = math.inf
    required: bool = False
    shortest: int = 1
    """Smallest number of elements of a list."""
    longest: int = MANY
    choices: tuple[str, ...] = ()
    """Accepted texts; empty for any."""

    def fault(self, value: GgufValue) -> str | None:
        """Return what is expected instead of `value`, None if it is accepted."""
        if value.kind != self.kind:
            return _KIND_NAMES[self.kind]
        if self.choices and value.text not in self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind.startswith("[") and not self.shortest <= value.length <= self.longest:
            return f"{self.shortest} elements or more"
        numbers = value.value if isinstance(value.value, tuple) else (value.value,)
        if not all(
            self.least <= number <= self.most for number in numbers if isinstance(number, int | float)
        ):
            return f"a number from {self.least:g} to {self.most:g}"
        return None


def number_rule(least: float, most: float, *, required: bool = True) -> Rule:
    """Return the rule of an unsigned 32-bit number from `least` to `most`."""
    return Rule("u32", least, most, required=required)


ZERO = Rule("u32", 0, 0)
"""A number of things that Qwen-VL does not have."""

SCALE = Rule("f32", 0, 1e6)
"""A factor of positions; 0 stands for none."""

EPSILON = Rule("f32", 0, 1, required=True)

NAME = Rule("str")

FLAG = Rule("bool")

COMMON_KEYS: Mapping[str, Rule] = {
    "general.name": NAME,
    "general.description": NAME,
    "general.file_type": Rule("u32"),
    "split.count": Rule("u16", 0, 1),
    "split.no": Rule("u16", 0, 0),
}
"""Keys of both files."""


def check_keys(path: Path, header: GgufHeader, rules: Mapping[str, Rule]) -> None:
    """Check each key that has a rule.

    Raises:
        CheckpointInvalid: a value has another type or is out of range, or a required key is missing.
    """
    for key, rule in rules.items():
        value = header.values.get(key)
        if value is None:
            if rule.required:
                raise CheckpointInvalid(path, f"{key} is missing from its metadata")
        elif (expected := rule.fault(value)) is not None:
            raise CheckpointInvalid(path, f"{key} is {_shown(value)}, expected {expected}")


def _shown(value: GgufValue) -> str:
    """Return the value as a short text for messages."""
    if value.kind.startswith("["):
        return f"a list of {value.length} elements"
    return repr(value.value[:40]) if isinstance(value.value, str) else f"{value.value} ({value.kind})"


def check_type(path: Path, name: str, tensor: GgufTensor, types: frozenset[int]) -> None:
    """Check that the numbers of the tensor are of one of the ggml types `types`."""
    if tensor.type not in types:
        raise CheckpointInvalid(
            path, f"{name[:60]} has numbers of the type {tensor.type}, which cannot be used"
        )
