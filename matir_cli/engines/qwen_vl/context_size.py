"""Size of a judge's context in llama.cpp: tokens, sequences and outputs that its questions need.

Sequences of the context: the first `grounds_at_once` ones hold the prefixes of photos, each with the head of
the prompt; those from `first_fork` on hold questions and their answers.
"""

from pathlib import Path

from matir_cli.engines.llama_cpp.bindings import Context, LanguageModel, available_threads
from matir_cli.engines.qwen_vl.answers import DRAFT_LIMIT
from matir_cli.engines.qwen_vl.options import QwenVlOptions
from matir_cli.engines.qwen_vl.preflight import check_memory
from matir_cli.errors import ContextTooSmall

IMAGE_MARKERS = 2
"""Tokens <|vision_start|> and <|vision_end|>, which mtmd puts around an image."""

QUESTION_TOKENS = 96
"""Length of a question, in tokens, that the context's default size allows for."""

RERANKS_AT_ONCE = 32
"""Largest number of questions about one photo in one batch."""

BATCH_TOKENS = 2048
"""Largest number of tokens in one batch."""


def largest_image(options: QwenVlOptions) -> int:
    """Return the number of tokens of the largest photo, with its markers."""
    return options.max_pixels // options.FAMILY.factor**2 + IMAGE_MARKERS


def first_fork(options: QwenVlOptions) -> int:
    """Return the first sequence for questions; the sequences of photos come before it."""
    return options.grounds_at_once


def make_context(
    model: LanguageModel, files: tuple[Path, Path], options: QwenVlOptions, head: int, *, gpu: bool
) -> Context:
    """Return a context for photos of the largest size and their answers, after a check of memory.

    Args:
        files: those of text model and projector.
        head: tokens of the prompt before the image.
        gpu: the model runs on a GPU, whose memory is not checked.

    Raises:
        ContextTooSmall: `context_tokens` is too small for a photo and a question.
        MemoryTooSmall: the files and the context do not fit into main memory.
    """
    question = QUESTION_TOKENS + options.max_answer_tokens + DRAFT_LIMIT
    per_photo = head + largest_image(options) + question
    cells = options.context_tokens or options.grounds_at_once * per_photo
    if cells < per_photo:
        raise ContextTooSmall(f"a photo of {options.max_pixels} pixels and its question", per_photo, cells)
    if not gpu:
        patches = options.max_pixels // options.FAMILY.patch_side**2
        check_memory(*files, options.FAMILY, cells * model.bytes_per_token, patches)
    return Context(
        model,
        cells=cells,
        sequences=first_fork(options) + max(options.grounds_at_once, RERANKS_AT_ONCE),
        batch=BATCH_TOKENS,
        outputs=max(RERANKS_AT_ONCE, options.grounds_at_once * (DRAFT_LIMIT + 1)),
        threads=options.threads or available_threads(),
    )
