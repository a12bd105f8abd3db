"""The judge on Qwen2.5-VL: does the photo contain the described object, and where?

The questions and the score are those of "Mask-aware Text-to-Image Retrieval" (Shen et al.,
ICMR 2025, eq. 2), the prompt is Qwen2.5-VL's chat template. A photo is encoded once, with
everything before the question; each question is a fork of that prefix.
"""

import atexit
import contextlib
import math
import unicodedata
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli.engines.llama_cpp.bindings import (
    Context,
    Grammar,
    LanguageModel,
    Run,
    Vision,
    available_threads,
    gpu_offered,
)
from matir_cli.engines.options import read_options
from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.engines.qwen_vl.answers import DRAFT_LIMIT, OpenAnswer, write_answers
from matir_cli.engines.qwen_vl.boxes import ANSWER_GRAMMAR, FACTOR, ImageSize, read_answer, smart_resize
from matir_cli.engines.qwen_vl.options import GROUND, HEAD, RERANK, TAIL, QwenVlOptions
from matir_cli.engines.qwen_vl.prefix_cache import PhotoKey, PrefixStore, photo_key
from matir_cli.engines.qwen_vl.preflight import check_files, check_memory
from matir_cli.errors import (
    CheckpointInvalid,
    ContextTooSmall,
    DeviceUnavailable,
    EngineFailed,
    ModelSetInvalid,
)
from matir_cli.records import EngineConfig, FloatArray, Grounding, ImageArray, Verdict

IMAGE_MARKERS = 2
"""<|vision_start|> and <|vision_end|>, which mtmd puts around an image."""

QUESTION_ROOM = 96
"""Tokens of a question that the context's default size counts on."""

RERANKS_AT_ONCE = 32
"""Questions about one photo that are decoded in one batch."""

BATCH = 2048
"""Tokens in one batch at most."""

HEAD_SEQUENCE = 0
"""Holds the system line and the opening of the user's turn, which all photos share."""

MIB = 1024**2


def load_qwen_vl_judge(config: EngineConfig, device: str) -> "QwenVlJudge":
    """The judge in the files `config.files["model"]` and `config.files["projector"]`.

    Args:
        config: options as in `QwenVlOptions`.
        device: "cpu", "cuda", "mps", or "auto": the GPU if llama.cpp was built for one.

    Raises:
        ModelSetInvalid: an option is wrong.
        CheckpointInvalid: a file is damaged, not what its role needs, or does not fit the other.
        MemoryTooSmall: the files and the context do not fit into main memory.
        ContextTooSmall: `context_tokens` does not hold a photo and a question.
        DeviceUnavailable: a GPU was asked for that llama.cpp was not built for.
    """
    options = read_options(config.options, QwenVlOptions, config.identity.name)
    if options.min_pixels > options.max_pixels:
        raise ModelSetInvalid(config.identity.name, "min_pixels must not be above max_pixels")
    if device not in ("cpu", "auto") and not gpu_offered():
        raise DeviceUnavailable(device)
    gpu = device != "cpu" and gpu_offered()
    return QwenVlJudge(config.files["model"], config.files["projector"], options, gpu=gpu)


class QwenVlJudge:
    """Fulfils `protocols.Judge`; a context manager, and freed at the latest when Python ends.

    Not for several threads at once.
    """

    def __init__(self, model: Path, projector: Path, options: QwenVlOptions, *, gpu: bool) -> None:
        """Loads both files; arguments and errors as in `load`."""
        check_files(model, projector)
        self._options = options
        self._image_room = options.max_pixels // FACTOR**2 + IMAGE_MARKERS
        with contextlib.ExitStack() as opened:
            self._model = LanguageModel(model, gpu_layers=options.n_gpu_layers if gpu else 0)
            opened.callback(self._model.close)
            self._true, self._false = (_single_token(self._model, model, word) for word in ("True", "False"))
            self._head = self._model.tokenize(HEAD, special=True)
            self._tail = self._model.tokenize(TAIL, special=True)
            self._context = self._make_context(model, projector, gpu=gpu)
            opened.callback(self._context.close)
            threads = options.threads or available_threads()
            self._vision = Vision(projector, self._model, gpu=gpu, threads=threads)
            opened.callback(self._vision.close)
            self._context.decode([Run(HEAD_SEQUENCE, 0, self._head, len(self._head))])
            self._close = weakref.finalize(self, opened.pop_all().close)
            # At the end of the process: before llama.py takes its log back, which it registered earlier.
            self._close.atexit = False
            atexit.register(self._close)
        self._store = PrefixStore(options.prefix_cache_mib * MIB)
        self._resident: dict[PhotoKey, tuple[int, int]] = {}
        """Photos that the context holds: sequence and next free position."""

    def __enter__(self) -> "QwenVlJudge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees model, projector, context and the photos kept."""
        self._close()
        atexit.unregister(self._close)
        self._store.clear()

    @property
    def grounds_at_once(self) -> int:
        """How many questions `ground` answers in about the time of one."""
        return self._options.grounds_at_once

    @property
    def kept_photos(self) -> frozenset[int]:
        """Keys of the photos that need not be encoded again."""
        return self._store.photos

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> list[Verdict]:
        """One verdict a query: the logits of `True` and `False` at the answer position (eq. 2).

        Raises:
            ContextTooSmall: a query is too long.
            EngineFailed: llama.cpp could not compute.
        """
        questions = [self._question(RERANK, query) for query in queries]
        verdicts: list[Verdict] = []
        for group in self._rerank_groups(self._size(photo), questions):
            (sequence, position), *_ = self._bring([photo])
            runs = []
            for fork, tokens in enumerate(group, start=self._first_fork):
                self._context.fork(sequence, fork)
                runs.append(Run(fork, position, tokens, len(tokens) - 1))
            rows = [row for (row,) in self._context.decode(runs)]
            verdicts += [self._verdict(row) for row in rows]
            for run in runs:
                self._context.drop(run.sequence)
        if verdicts:
            self._store.judged(photo_key(photo), queries, verdicts)
        return verdicts

    def _verdict(self, logits: FloatArray) -> Verdict:
        """What the logits (vocabulary,) at the answer position say."""
        true, false = float(logits[self._true]), float(logits[self._false])
        if not (math.isfinite(true) and math.isfinite(false)):
            raise EngineFailed("the logits are not numbers: the weights may be damaged")
        return Verdict(true, false)

    def ground(self, questions: Sequence[GroundingQuestion]) -> list[Grounding]:
        """One grounding a question, `grounds_at_once` of them written together.

        Boxes are in pixels of each photo's `image`. Greedy; within `ANSWER_GRAMMAR`.

        Raises:
            ContextTooSmall: a query is too long.
            EngineFailed: llama.cpp could not compute.
        """
        groundings: list[Grounding] = []
        for group in self._ground_groups(questions):
            groundings += self._ground_together(group)
        return groundings

    def _ground_together(self, questions: Sequence[GroundingQuestion]) -> list[Grounding]:
        """The groundings of questions that fit into the context at once."""
        places = self._bring([question.photo for question in questions])
        with contextlib.ExitStack() as grammars:
            answers = []
            for fork, (question, (sequence, position)) in enumerate(
                zip(questions, places, strict=True), start=self._first_fork
            ):
                grammar = Grammar(self._model, ANSWER_GRAMMAR)
                grammars.callback(grammar.close)
                self._context.fork(sequence, fork)
                grammars.callback(self._context.drop, fork)
                tokens = self._question(GROUND, question.query)
                answers.append(OpenAnswer(question.query, fork, position, tokens, grammar))
            write_answers(self._model, self._context, answers, self._options.max_answer_tokens)
        return [
            self._read(question, answer.text) for question, answer in zip(questions, answers, strict=True)
        ]

    def _read(self, question: GroundingQuestion, text: str) -> Grounding:
        """The boxes of an answer in pixels of the photo asked about."""
        height, width = question.photo.image.shape[:2]
        answer = read_answer(text, self._size(question.photo), ImageSize(height, width))
        return Grounding(answer.boxes, text, answer.readable)

    @property
    def _first_fork(self) -> int:
        """The sequences of photos come before those of questions."""
        return HEAD_SEQUENCE + 1 + self._options.grounds_at_once

    def _size(self, photo: JudgePhoto) -> ImageSize:
        """The size that the model looks at `photo` in."""
        height, width = photo.image.shape[:2]
        return smart_resize(height, width, self._options.min_pixels, self._options.max_pixels)

    def _question(self, text: str, query: str) -> list[int]:
        """Tokens from behind the image to the answer position.

        The query cannot smuggle in a marker such as <|im_end|>: it is tokenised as plain text.
        """
        # Qwen's tokenizer normalises to NFC, llama.cpp's leaves text as it is.
        plain = unicodedata.normalize("NFC", text + query)
        tokens = self._model.tokenize(plain) + self._tail
        room = min(self._context.batch, self._context.cells - 2 * len(self._head) - self._image_room)
        room -= DRAFT_LIMIT
        if len(tokens) > room:
            raise ContextTooSmall("the question", len(tokens), room)
        return tokens

    def _rerank_groups(self, size: ImageSize, questions: Sequence[list[int]]) -> Iterator[list[list[int]]]:
        """Questions about one photo, as many together as sequences, batch and context hold."""
        room = min(
            self._context.batch, self._context.cells - 2 * len(self._head) - size.tokens - IMAGE_MARKERS
        )
        group: list[list[int]] = []
        for tokens in questions:
            if len(group) == RERANKS_AT_ONCE or sum(map(len, group)) + len(tokens) > room:
                yield group
                group = []
            group.append(tokens)
        if group:
            yield group

    def _ground_groups(self, questions: Sequence[GroundingQuestion]) -> Iterator[list[GroundingQuestion]]:
        """Questions, as many together as sequences, batch and context hold."""
        group: list[GroundingQuestion] = []
        cells = batch = 0
        for question in questions:
            asked = len(self._question(GROUND, question.query)) + DRAFT_LIMIT
            photo = len(self._head) + self._size(question.photo).tokens + IMAGE_MARKERS
            needed = photo + asked + self._options.max_answer_tokens
            full = (
                cells + needed > self._context.cells - len(self._head) or batch + asked > self._context.batch
            )
            if group and (full or len(group) == self._options.grounds_at_once):
                yield group
                group, cells, batch = [], 0, 0
            group.append(question)
            cells, batch = cells + needed, batch + asked
        if group:
            yield group

    def _bring(self, photos: Sequence[JudgePhoto]) -> list[tuple[int, int]]:
        """Sequence and next position of each photo, brought into the context if it is not there.

        Others leave it: what the context holds costs attention even where it is masked out.
        """
        keys = [photo_key(photo) for photo in photos]
        for key in [key for key in self._resident if key not in keys]:
            self._context.drop(self._resident.pop(key)[0])
        for key, photo in zip(keys, photos, strict=True):
            if key not in self._resident:
                taken = {sequence for sequence, _ in self._resident.values()}
                free = next(s for s in range(HEAD_SEQUENCE + 1, self._first_fork) if s not in taken)
                self._resident[key] = free, self._fill(free, key, photo)
        return [self._resident[key] for key in keys]

    def _fill(self, sequence: int, key: PhotoKey, photo: JudgePhoto) -> int:
        """Puts a photo's prefix into the empty `sequence`; returns the next free position."""
        if key in self._store:
            state, position = self._store.get(key)
            self._context.restore(sequence, state)
            return position
        self._context.fork(HEAD_SEQUENCE, sequence)
        try:
            position = self._vision.put(self._context, self._resized(photo), sequence, len(self._head))
        except BaseException:
            # A half-filled sequence must not be taken for free and empty.
            self._context.drop(sequence)
            raise
        if self._options.prefix_cache_mib:
            self._store.put(key, self._context.save(sequence), position)
        return position

    def _resized(self, photo: JudgePhoto) -> ImageArray:
        """The image in the size that the model looks at it in, so that mtmd leaves it alone."""
        size = self._size(photo)
        if photo.image.shape[:2] == (size.height, size.width):
            return photo.image
        picture = Image.fromarray(photo.image)
        return np.asarray(picture.resize((size.width, size.height), Image.Resampling.BICUBIC))

    def _make_context(self, model: Path, projector: Path, *, gpu: bool) -> Context:
        """A context with room for the largest photos and their answers."""
        options = self._options
        head = len(self._head)
        question = QUESTION_ROOM + options.max_answer_tokens + DRAFT_LIMIT
        one = head + self._image_room + question
        least = head + one
        cells = options.context_tokens or head + options.grounds_at_once * one
        if cells < least:
            raise ContextTooSmall(f"a photo of {options.max_pixels} pixels and its question", least, cells)
        if not gpu:
            patches = options.max_pixels * 4 // FACTOR**2
            check_memory(model, projector, cells * self._model.cell_bytes, patches)
        return Context(
            self._model,
            cells=cells,
            sequences=self._first_fork + max(options.grounds_at_once, RERANKS_AT_ONCE),
            batch=BATCH,
            outputs=max(RERANKS_AT_ONCE, options.grounds_at_once * (DRAFT_LIMIT + 1)),
            threads=options.threads or available_threads(),
        )


def _single_token(model: LanguageModel, path: Path, word: str) -> int:
    """The token of an answer word at the answer position, where no space comes before it."""
    tokens = model.tokenize(word)
    if len(tokens) != 1:
        raise CheckpointInvalid(path, f'its vocabulary has no single token for "{word}"')
    return tokens[0]
