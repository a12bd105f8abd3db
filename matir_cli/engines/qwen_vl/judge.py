"""Qwen2.5-VL and Qwen3-VL as judges: rerank photos and ground described objects.

The questions and the score are those of "Mask-aware Text-to-Image Retrieval" (Shen et al., ICMR 2025,
eq. 2), the prompt is the family's chat template. A photo is encoded once, together with everything that
precedes the question; each question is decoded in a fork of that prefix (`context_size`).
"""

import atexit
import contextlib
import math
import unicodedata
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from matir_cli.engines.llama_cpp.bindings import (
    LanguageModel,
    SequenceState,
    TokenRun,
    VisionProjector,
    available_threads,
    gpu_available,
)
from matir_cli.engines.llama_cpp.grammar import Grammar
from matir_cli.engines.options import read_options
from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.engines.qwen_vl.answers import DRAFT_LIMIT, PartialAnswer, generate_answers
from matir_cli.engines.qwen_vl.boxes import ANSWER_GRAMMAR, ImageSize, parse_answer, smart_resize
from matir_cli.engines.qwen_vl.choosing import NUMBERS, number_regions
from matir_cli.engines.qwen_vl.context_size import (
    IMAGE_MARKERS,
    RERANKS_AT_ONCE,
    first_fork,
    largest_image,
    make_context,
)
from matir_cli.engines.qwen_vl.enlarging import BoxQuestion, enlarge_photo, resize_image
from matir_cli.engines.qwen_vl.options import CHOOSE, GROUND, RERANK, TAIL, Qwen3VlOptions, QwenVlOptions
from matir_cli.engines.qwen_vl.prefix_cache import CachedPrefix, PhotoKey, PrefixCache, compute_photo_key
from matir_cli.engines.qwen_vl.preflight import check_files
from matir_cli.errors import (
    CheckpointInvalid,
    ContextTooSmall,
    DeviceUnavailable,
    EngineFailed,
    ModelSetInvalid,
)
from matir_cli.records import EngineConfig, FloatArray, Grounding, ImageArray, Verdict

PLAIN_SIDE = 128
"""Side in pixels of the plain picture with which weights are checked."""

MIB = 1024**2
"""Bytes per MiB."""


def load_qwen_vl_judge(config: EngineConfig, device: str) -> "QwenVlJudge":
    """Load a Qwen2.5-VL judge from the files `config.files["model"]` and `config.files["projector"]`.

    Args:
        config: options as in `QwenVlOptions`.
        device: "cpu", "cuda", "mps", or "auto": the GPU if llama.cpp was built for one.

    Raises:
        ModelSetInvalid: an option is invalid.
        CheckpointInvalid: a file is damaged, is of the wrong kind, or does not fit the other.
        MemoryTooSmall: the files and the context do not fit into main memory.
        ContextTooSmall: `context_tokens` is too small for a photo and a question.
        DeviceUnavailable: `device` is a GPU that llama.cpp cannot use.
    """
    return _load(config, device, read_options(config.options, QwenVlOptions, config.identity.name))


def load_qwen3_vl_judge(config: EngineConfig, device: str) -> "QwenVlJudge":
    """Load a Qwen3-VL judge, with options as in `Qwen3VlOptions`; otherwise as `load_qwen_vl_judge`."""
    return _load(config, device, read_options(config.options, Qwen3VlOptions, config.identity.name))


def _load(config: EngineConfig, device: str, options: QwenVlOptions) -> "QwenVlJudge":
    """Load the judge of the options' family; errors as in `load_qwen_vl_judge`."""
    for name in ("min_pixels", "ground_min_pixels"):
        if getattr(options, name) > options.max_pixels:
            raise ModelSetInvalid(config.identity.name, f"{name} must not be above max_pixels")
    if device not in ("cpu", "auto") and not gpu_available():
        raise DeviceUnavailable(device)
    gpu = device != "cpu" and gpu_available()
    return QwenVlJudge(config.files["model"], config.files["projector"], options, gpu=gpu)


@dataclass(frozen=True, slots=True)
class _LoadedPrefix:
    """The prefix of a photo in the context."""

    sequence: int
    """Sequence that holds it."""
    next_position: int
    """First free position after it."""


class QwenVlJudge:
    """Fulfils `protocols.Judge`; a context manager, closed at the latest when the process exits.

    Not thread-safe.
    """

    def __init__(self, model: Path, projector: Path, options: QwenVlOptions, *, gpu: bool) -> None:
        """Load both files; arguments and errors as in `load_qwen_vl_judge`."""
        check_files(model, projector, options.FAMILY)
        self._options = options
        self._family = options.FAMILY
        self._largest_image = largest_image(options)
        self._first_fork = first_fork(options)
        with contextlib.ExitStack() as resources:
            self._model = LanguageModel(model, gpu_layers=options.n_gpu_layers if gpu else 0)
            resources.callback(self._model.close)
            self._true, self._false = (_single_token(self._model, model, word) for word in ("True", "False"))
            numbers = NUMBERS if options.grounding == "choose" else ""
            self._numbers = [_single_token(self._model, model, number) for number in numbers]
            self._head = self._model.tokenize(options.PROMPT_HEAD, special=True)
            self._tail = self._model.tokenize(TAIL, special=True)
            self._context = make_context(self._model, (model, projector), options, len(self._head), gpu=gpu)
            resources.callback(self._context.close)
            threads = options.threads or available_threads()
            self._projector = VisionProjector(projector, self._model, gpu=gpu, threads=threads)
            resources.callback(self._projector.close)
            self._head_state = self._decode_head()
            self._close = weakref.finalize(self, resources.pop_all().close)
            # At exit this must run before the bindings stop receiving the log. They registered earlier with
            # atexit, so what is registered here runs first; weakref's own exit hook would run too late.
            self._close.atexit = False
            atexit.register(self._close)
        self._cache = PrefixCache(options.prefix_cache_mib * MIB)
        self._smaller: set[PhotoKey] = set()
        """Photos that the model sees at three quarters of their sides, since it computed no numbers else."""
        self._sound = False
        """True once the model is known to compute numbers for a plain picture."""

    def __enter__(self) -> "QwenVlJudge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model, the projector, the context and the cached photos."""
        self._close()
        atexit.unregister(self._close)
        self._cache.clear()

    @property
    def grounds_at_once(self) -> int:
        """Number of questions that `ground` answers in about the time of one."""
        return self._options.grounds_at_once

    @property
    def cached_photos(self) -> frozenset[int]:
        """Keys of the photos that need not be encoded again."""
        return self._cache.photos

    # -- Reranking ---------------------------------------------------------------------------

    def rerank(self, photo: JudgePhoto, queries: Sequence[str]) -> list[Verdict | None]:
        """Return one verdict per query: the logits of `True` and `False` at the answer position (eq. 2).

        None where the logits are not finite, at two sizes of the photo: some numbers in the vision tower
        overflow for some photos.

        Raises:
            ContextTooSmall: a query is too long.
            EngineFailed: llama.cpp could not compute, or the logits are not finite even for a plain picture.
        """
        questions = [self._tokenize_question(RERANK, query) for query in queries]
        verdicts = self._rerank_once(photo, questions)
        if None in verdicts and self._choose_smaller(photo):
            verdicts = self._rerank_once(photo, questions)
        answered = [verdict for verdict in verdicts if verdict is not None]
        if len(answered) == len(verdicts) > 0:
            self._cache.record_verdicts(compute_photo_key(photo), queries, answered)
        return verdicts

    def _rerank_once(self, photo: JudgePhoto, questions: Sequence[list[int]]) -> list[Verdict | None]:
        """Return one verdict per question, None where its logits are not finite."""
        verdicts = [self._verdict(logits) for logits in self._decode_questions(photo, questions)]
        if None in verdicts:
            self._start_anew([photo])
        return verdicts

    def _decode_questions(self, photo: JudgePhoto, questions: Sequence[list[int]]) -> Iterator[FloatArray]:
        """Yield the logits (vocabulary,) at the answer position of each question about one photo."""
        (prefix,) = self._load_photos([photo])
        for group in self._group_reranks(self._resized_size(photo), questions):
            runs = []
            for fork, tokens in enumerate(group, start=self._first_fork):
                self._context.fork(prefix.sequence, fork)
                runs.append(TokenRun(fork, prefix.next_position, tokens, len(tokens) - 1))
            rows = self._context.decode(runs)
            for run in runs:
                self._context.drop(run.sequence)
            for (logits,) in rows:
                yield logits

    def _group_reranks(self, size: ImageSize, questions: Sequence[list[int]]) -> Iterator[list[list[int]]]:
        """Yield questions about one photo in groups that fit into sequences, batch and context."""
        image = size.tokens(self._family.factor) + IMAGE_MARKERS
        limit = min(self._context.batch_limit, self._context.cells - len(self._head) - image)
        group: list[list[int]] = []
        for tokens in questions:
            if len(group) == RERANKS_AT_ONCE or sum(map(len, group)) + len(tokens) > limit:
                yield group
                group = []
            group.append(tokens)
        if group:
            yield group

    def _verdict(self, logits: FloatArray) -> Verdict | None:
        """Return the verdict in the logits (vocabulary,) at the answer position; None if not finite."""
        true, false = float(logits[self._true]), float(logits[self._false])
        return Verdict(true, false) if math.isfinite(true) and math.isfinite(false) else None

    # -- Photos for which the model computes no numbers --------------------------------------

    def _start_anew(self, photos: Sequence[JudgePhoto]) -> None:
        """Empty the context after `photos`, whose numbers in it are not finite, and forget their prefixes."""
        self._context.clear()
        for photo in photos:
            self._cache.discard(compute_photo_key(photo))

    def _choose_smaller(self, photo: JudgePhoto) -> bool:
        """Show the model a smaller version of `photo` from now on; False if it already does.

        Raises:
            EngineFailed: the model computes no numbers for a plain picture either.
        """
        if not self._sound:
            plain = JudgePhoto(-1, np.full((PLAIN_SIDE, PLAIN_SIDE, 3), 128, np.uint8))
            (verdict,) = self._rerank_once(plain, [self._tokenize_question(RERANK, "a dog")])
            if verdict is None:
                raise EngineFailed("the logits are not numbers, for any photo: the weights may be damaged")
            self._sound = True
        key = compute_photo_key(photo)
        if key in self._smaller:
            return False
        self._smaller.add(key)
        return True

    # -- Grounding ---------------------------------------------------------------------------

    @property
    def offers(self) -> int:
        """Number of regions that a question for boxes may offer to choose among; 0: boxes are written."""
        return len(self._numbers)

    def ground(self, questions: Sequence[GroundingQuestion]) -> list[Grounding | None]:
        """Return one grounding per question; `grounds_at_once` of them are generated together.

        Boxes are in pixels of each photo's `image`. Decoding is greedy, within `ANSWER_GRAMMAR`. Of offered
        regions one is chosen, if the judge is set to choose. None as in `rerank`.

        Raises:
            ContextTooSmall: a query is too long.
            EngineFailed: as in `rerank`.
        """
        chosen = {
            place: self._choose(question)
            for place, question in enumerate(questions)
            if question.offered and self._numbers
        }
        written = iter(self._write_boxes([q for place, q in enumerate(questions) if place not in chosen]))
        return [chosen[place] if place in chosen else next(written) for place in range(len(questions))]

    def _choose(self, question: GroundingQuestion) -> Grounding | None:
        """Let the model choose one of the offered regions; None as in `rerank`."""
        regions = question.offered[: self.offers]
        size = self._resized_size(question.photo)
        shown = replace(question.photo, image=number_regions(question.photo.image, regions, size))
        tokens = self._tokenize_question(CHOOSE, question.query)
        for _ in range(2):
            (logits,) = self._decode_questions(shown, [tokens])
            numbers = logits[self._numbers[: len(regions)]]
            if np.isfinite(numbers).all():
                best = int(numbers.argmax())
                return Grounding((regions[best],), NUMBERS[best], readable=True)
            self._start_anew([shown])
            if not self._choose_smaller(shown):
                break
        return None

    def _write_boxes(self, questions: Sequence[GroundingQuestion]) -> list[Grounding | None]:
        """Return one grounding per question, with the boxes that the model writes."""
        groundings: list[Grounding | None] = []
        for group in self._group_groundings([self._enlarge(question) for question in questions]):
            found = self._ground_group(group)
            if None in found:  # one photo may have spoilt the others' answers
                found = [self._ground_alone(question) for question in group]
            groundings += found
        return groundings

    def _enlarge(self, question: GroundingQuestion) -> BoxQuestion:
        """Enlarge the question's photo, unless the model computed no numbers even for its own size."""
        if self._smaller and compute_photo_key(question.photo) in self._smaller:
            return BoxQuestion(question, question.photo)
        return enlarge_photo(question, self._resized_size(question.photo), self._options)

    def _ground_alone(self, question: BoxQuestion) -> Grounding | None:
        """Return one grounding, at another size of the photo if need be; None if there is none."""
        (found,) = self._ground_group([question])
        if found is None and self._choose_smaller(question.photo):
            (found,) = self._ground_group([question])
        return found

    def _group_groundings(self, questions: Sequence[BoxQuestion]) -> Iterator[list[BoxQuestion]]:
        """Yield questions in groups that fit into sequences, batch and context."""
        group: list[BoxQuestion] = []
        group_cells = group_batch = 0
        for question in questions:
            batch = len(self._tokenize_question(GROUND, question.asked.query)) + DRAFT_LIMIT
            image = self._resized_size(question.photo).tokens(self._family.factor)
            cells = len(self._head) + image + IMAGE_MARKERS + batch + self._options.max_answer_tokens
            full = (
                len(group) == self._options.grounds_at_once
                or group_cells + cells > self._context.cells
                or group_batch + batch > self._context.batch_limit
            )
            if group and full:
                yield group
                group, group_cells, group_batch = [], 0, 0
            group.append(question)
            group_cells, group_batch = group_cells + cells, group_batch + batch
        if group:
            yield group

    def _ground_group(self, questions: Sequence[BoxQuestion]) -> list[Grounding | None]:
        """Return the groundings of questions that fit into the context together; None as in `rerank`."""
        prefixes = self._load_photos([question.photo for question in questions])
        with contextlib.ExitStack() as resources:
            answers = []
            for fork, (question, prefix) in enumerate(
                zip(questions, prefixes, strict=True), start=self._first_fork
            ):
                grammar = Grammar(self._model, ANSWER_GRAMMAR)
                resources.callback(grammar.close)
                self._context.fork(prefix.sequence, fork)
                resources.callback(self._context.drop, fork)
                query = question.asked.query
                tokens = self._tokenize_question(GROUND, query)
                answers.append(PartialAnswer(query, fork, prefix.next_position, tokens, grammar))
            generate_answers(self._model, self._context, answers, self._options.max_answer_tokens)
        if any(answer.failed for answer in answers):
            self._start_anew([question.photo for question in questions])
        return [
            None if answer.failed else self._grounding(question, answer.text)
            for question, answer in zip(questions, answers, strict=True)
        ]

    def _grounding(self, question: BoxQuestion, text: str) -> Grounding:
        """Return the boxes of an answer, in pixels of the photo that was asked about."""
        height, width = question.asked.photo.image.shape[:2]
        grid = self._family.box_grid
        frame = ImageSize(grid, grid) if grid else self._resized_size(question.photo)
        answer = parse_answer(text, frame, ImageSize(height, width))
        return Grounding(answer.boxes, text, answer.readable)

    # -- Questions and photos ----------------------------------------------------------------

    def _tokenize_question(self, prompt: str, query: str) -> list[int]:
        """Return the tokens from after the image to the answer position.

        The query is tokenised as plain text, so that it cannot inject a marker such as <|im_end|>.
        """
        # Qwen's tokenizer normalises to NFC, llama.cpp's leaves text as it is.
        text = unicodedata.normalize("NFC", prompt + query)
        tokens = self._model.tokenize(text) + self._tail
        cells = self._context.cells - len(self._head) - self._largest_image
        limit = min(self._context.batch_limit, cells) - DRAFT_LIMIT
        if len(tokens) > limit:
            raise ContextTooSmall("the question", len(tokens), limit)
        return tokens

    def _load_photos(self, photos: Sequence[JudgePhoto]) -> list[_LoadedPrefix]:
        """Load the prefixes of `photos`, and nothing else, into the context.

        They always come to lie there in the same way, whatever was asked before and whether they were cached:
        the last bits of the logits depend on it, and the same question must get the same answer.
        """
        distinct = {compute_photo_key(photo): photo for photo in photos}
        prefixes = [self._prefix(key, photo) for key, photo in distinct.items()]
        self._context.drop_all()
        loaded = {}
        for sequence, (key, prefix) in enumerate(zip(distinct, prefixes, strict=True)):
            self._context.restore(sequence, prefix.state)
            loaded[key] = _LoadedPrefix(sequence, prefix.next_position)
        return [loaded[compute_photo_key(photo)] for photo in photos]

    def _prefix(self, key: PhotoKey, photo: JudgePhoto) -> CachedPrefix:
        """Return a photo's prefix, cached or new; a new one is made in the emptied context."""
        if key in self._cache:
            return self._cache.get(key)
        image = self._resize(photo)
        self._context.drop_all()
        self._context.restore(0, self._head_state)
        position = self._projector.encode_image(self._context, image, 0, len(self._head))
        return self._cache.put(key, self._context.save(0), position)

    def _decode_head(self) -> SequenceState:
        """Return the head of the prompt, as the context holds it."""
        self._context.decode([TokenRun(0, 0, self._head, len(self._head))])
        return self._context.save(0)

    def _resized_size(self, photo: JudgePhoto) -> ImageSize:
        """Return the size in which the model sees `photo`."""
        height, width = photo.image.shape[:2]
        factor = self._family.factor
        size = smart_resize(height, width, self._options.min_pixels, self._options.max_pixels, factor)
        if not self._smaller or compute_photo_key(photo) not in self._smaller:
            return size
        fewer = max(factor**2, size.height * size.width * 9 // 16)
        return smart_resize(height, width, min(self._options.min_pixels, fewer), fewer, factor)

    def _resize(self, photo: JudgePhoto) -> ImageArray:
        """Return the image in the size in which the model sees it, so that mtmd does not letterbox it."""
        size = self._resized_size(photo)
        return resize_image(photo.image, size)


def _single_token(model: LanguageModel, path: Path, word: str) -> int:
    """Return the token of an answer word at the answer position, where no space precedes it."""
    tokens = model.tokenize(word)
    if len(tokens) != 1:
        raise CheckpointInvalid(path, f'its vocabulary has no single token for "{word}"')
    return tokens[0]
