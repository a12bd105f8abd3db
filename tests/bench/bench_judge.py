"""Bench of the judge beside llama-cpp-python's own chat handler.

    python -m tests.bench.bench_judge [--quick] [--candidates 8] [--keep 8] [--threads 2]
        [--device cpu|auto] [--flash] [--clock wall|cpu] [--folder DIR]

Both sides have the same model, photos and questions. The model is a Qwen2.5-VL of about 360 M parameters
with random weights, a much smaller one with --quick (text model Q4_K_M, projector float16, as in the real
sets). The plain way is one `create_chat_completion`
to rerank and one to ground each photo. Random weights know no JSON, so on both sides a grammar of
exact tokens forces the usual form of an answer: one box with three digits per number. What the judge
drafts is then right, as it nearly always is with trained weights. The same query again goes through
stage 2 from stored photos to results, without stage 1. Each way runs in a process of its own, so that
its peak memory can be told.
"""

import argparse
import ctypes
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli import masks
from matir_cli.engines.llama_cpp.bindings import LanguageModel
from matir_cli.engines.protocols import GroundingQuestion, Judge, JudgePhoto
from matir_cli.engines.qwen_vl import judge as judge_module
from matir_cli.engines.qwen_vl.boxes import EXPECTED_START
from matir_cli.engines.qwen_vl.judge import load_qwen_vl_judge
from matir_cli.engines.qwen_vl.options import GROUND, HEAD, RERANK, TAIL
from matir_cli.engines.registry import identify_config
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.verdict_cache import VerdictCache
from matir_cli.photos.preview import encode_preview
from matir_cli.records import (
    Candidate,
    EngineConfig,
    FileRecord,
    ImageArray,
    ModelIdentity,
    PhotoRecord,
    Region,
)
from matir_cli.search.grounding import MatchOptions, results_by_box
from matir_cli.search.rerank import JudgeSession, order_by_verdict, rerank_candidates
from matir_cli.search.results import SearchResult
from tests.bench.measuring import (
    CLOCKS,
    BenchParser,
    Timings,
    format_seconds,
    in_new_process,
    peak_memory,
    print_columns,
    print_heading,
    print_row,
    time_once,
)

QUERY = "dog led by rope"
SEVERAL = [f"{QUERY} {number}" for number in range(8)]
PLAIN, OURS = "chat handler", "judge"
REPEATS = 5
"""Times that the same query is asked again."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Numbers in which the models of the bench and of --quick differ."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    vision_width: int
    vision_depth: int
    vision_heads: int


FULL = ModelSize(32_000, 1024, 16, 16, 4, 640, 16, 8)
SMALL = ModelSize(1000, 256, 2, 4, 1, 160, 4, 2)


@dataclass(frozen=True, slots=True)
class JudgeRun:
    """The judge's figures; durations in seconds."""

    rerank: Timings
    """Per photo, one question each."""
    ground: float
    """All photos grounded together, their prefixes kept."""
    ground_one_by_one: float
    """The same photos, one after the other."""
    ground_fresh: float
    """The same photos together, no prefix kept."""
    several: float
    """Several questions about one photo, in one call."""
    several_apart: float
    """The same questions, each encoding the photo anew."""
    margins: list[float]
    answers: list[str]
    peak: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class HandlerRun:
    """The chat handler's figures; durations in seconds."""

    rerank: Timings
    """Per photo."""
    ground: Timings
    """Per photo."""
    margins: list[float]
    answers: list[str]
    peak: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class RepeatRun:
    """Stage 2 of one query, and of the same query again; durations in seconds."""

    first: float
    again: Timings
    boxes: int
    """Results with a box."""


def usual_form(tokenize: Callable[[str], list[int]]) -> str:
    """A grammar of exact tokens: the usual answer, with free digits in corners that lie in order."""

    def exactly(text: str) -> str:
        return " ".join(f"<[{token}]>" for token in tokenize(text))

    def digits(allowed: str) -> str:
        return " | ".join(exactly(digit) for digit in allowed)

    # From 111 to 299 and from 311 to 499: a box with an area in every picture.
    corners, comma = ["a n n", "a n n", "b n n", "b n n"], f" {exactly(',')} {exactly(' ')} "
    rest = exactly(f'], "label": "{QUERY}"}}\n]\n```')
    root = f"root ::= {exactly(EXPECTED_START)} {comma.join(corners)} {rest}"
    return "\n".join(
        [root, f"a ::= {digits('12')}", f"b ::= {digits('34')}", f"n ::= {digits('123456789')}", ""]
    )


def build(folder: Path, size: ModelSize) -> None:
    """Write `text.gguf` (Q4_K_M) and `projector.gguf` (float16)."""
    import llama_cpp
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from matir_cli.models.tiny.gguf_writer import write_gguf
    from matir_cli.models.tiny.qwen_tokenizer import build_tokenizer

    answer = '```json\n[\n\t{"bbox_2d": [123, 456, 789, 101], "label": "dog led by rope"}\n]\n```'
    texts = [HEAD, TAIL, RERANK + QUERY, GROUND + QUERY, answer]
    tokenizer = build_tokenizer(texts, 1000)
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": size.vocabulary,
            "hidden_size": size.width,
            "intermediate_size": 4 * size.width,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        },
        vision_config={
            "depth": size.vision_depth,
            "hidden_size": size.vision_width,
            "intermediate_size": size.vision_width * 27 // 10,
            "num_heads": size.vision_heads,
            "out_hidden_size": size.width,
            "fullatt_block_indexes": list(range(3, size.vision_depth, 4)),
        },
        tie_word_embeddings=True,
    )
    with torch.device("cpu"):
        model = torch.nn.Module.half(Qwen2_5_VLForConditionalGeneration(config))
    write_gguf(model, tokenizer, folder / "text-f16.gguf", folder / "projector.gguf", precision="f16")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    source, target = str(folder / "text-f16.gguf").encode(), str(folder / "text.gguf").encode()
    if llama_cpp.llama_model_quantize(source, target, ctypes.byref(params)):
        raise SystemExit("quantising failed")


def pictures(count: int) -> list[ImageArray]:
    """Seeded pictures of 448 x 336 pixels, a size that Qwen's processor leaves as it is."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (count, 12, 16, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(one).resize((448, 336), Image.Resampling.BICUBIC)) for one in coarse]


@contextmanager
def usual_answers(folder: Path, arguments: argparse.Namespace) -> Iterator[EngineConfig]:
    """The judge's configuration; within the block its answers have the usual form."""
    vocabulary = LanguageModel(folder / "text.gguf", gpu_layers=0)
    grammar = usual_form(vocabulary.tokenize)
    vocabulary.close()
    files = {"model": folder / "text.gguf", "projector": folder / "projector.gguf"}
    # The judge has no argument for its grammar: no user needs another one.
    names = vars(judge_module)
    own = names["ANSWER_GRAMMAR"]
    names["ANSWER_GRAMMAR"] = grammar
    try:
        yield EngineConfig("qwen_vl", {"threads": arguments.threads}, files, ModelIdentity("bench", "0"))
    finally:
        names["ANSWER_GRAMMAR"] = own


def run_judge(folder: Path, arguments: argparse.Namespace) -> JudgeRun:
    """Time the judge as the package uses it, and without each of its savings."""
    clock = CLOCKS[arguments.clock]
    photos = [JudgePhoto(key, image) for key, image in enumerate(pictures(arguments.candidates))]
    questions = [GroundingQuestion(photo, QUERY) for photo in photos[: arguments.keep]]
    first = photos[0]
    with usual_answers(folder, arguments) as config:
        with load_qwen_vl_judge(config, arguments.device) as judge:
            judge.rerank(JudgePhoto(-1, first.image), [QUERY])
            reranked = [time_once(partial(judge.rerank, photo, [QUERY]), clock) for photo in photos]
            ground, groundings = time_once(partial(judge.ground, questions), clock)
            one_by_one, _ = time_once(lambda: [judge.ground([question]) for question in questions], clock)
            several, _ = time_once(partial(judge.rerank, first, SEVERAL), clock)
        nothing_kept = replace(config, options={**config.options, "prefix_cache_mib": 0})
        with load_qwen_vl_judge(nothing_kept, arguments.device) as forgetful:
            fresh, _ = time_once(partial(forgetful.ground, questions), clock)
            photos_apart = [JudgePhoto(1000 + number, first.image) for number in range(len(SEVERAL))]
            pairs = list(zip(photos_apart, SEVERAL, strict=True))
            apart, _ = time_once(lambda: [forgetful.rerank(photo, [query]) for photo, query in pairs], clock)
    return JudgeRun(
        Timings(tuple(seconds for seconds, _ in reranked)),
        ground,
        one_by_one,
        fresh,
        several,
        apart,
        [verdict.margin for _, (verdict,) in reranked if verdict is not None],
        [grounding.answer for grounding in groundings if grounding is not None],
        peak_memory(),
    )


def fill(gallery: GalleryFile, images: list[ImageArray]) -> list[Candidate]:
    """Store the pictures with their previews, each with the whole photo and four boxes as regions."""
    rng = np.random.default_rng(1)
    candidates = []
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        rles = [masks.whole(height, width)]
        for x, y in rng.integers(0, (width // 2, height // 2), (4, 2)):
            inside = np.zeros((height, width), dtype=np.bool_)
            inside[y : y + height // 2, x : x + width // 2] = True
            rles.append(masks.encode(inside))
        regions = [Region(rle, masks.box(rle), masks.area(rle), 0.9, 0.95) for rle in rles]
        photo = PhotoRecord(number.to_bytes(32), width, height, width, height, 1)
        file = FileRecord(gallery.path.with_name(f"{number}.png"), image.nbytes, 0)
        with gallery.atomic():
            photo_id, ids = gallery.add_photo(file, photo, regions, encode_preview(image))
        candidates.append(Candidate(photo_id, ids[0], 1.0 - number / len(images)))
    return candidates


def run_again(folder: Path, arguments: argparse.Namespace) -> RepeatRun:
    """Time a query through stage 2, and the same query again: the gallery reopened, no judge loaded."""
    clock = CLOCKS[arguments.clock]

    def no_judge() -> Judge:
        raise SystemExit("the judge was needed for remembered verdicts")

    with usual_answers(folder, arguments) as config, tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "gallery.db"
        cache_key = identify_config(config).identity.weight_hash

        def search(load_judge: Callable[[], Judge]) -> list[SearchResult]:
            with GalleryFile.open(path) as gallery:
                session = JudgeSession(gallery, load_judge, VerdictCache(gallery, cache_key, QUERY), QUERY)
                ranking = order_by_verdict(list(rerank_candidates(session, candidates)))
                return list(results_by_box(session, ranking[: arguments.keep], MatchOptions()))

        with GalleryFile.open(path, create=True) as gallery:
            candidates = fill(gallery, pictures(arguments.candidates))
        with load_qwen_vl_judge(config, arguments.device) as judge:
            # Under a key that no photo has: loading and warming up are not counted.
            judge.rerank(JudgePhoto(-1, pictures(1)[0]), [QUERY])
            first, results = time_once(lambda: search(lambda: judge), clock)
        again = [time_once(partial(search, no_judge), clock) for _ in range(REPEATS)]
    if any(repeated != results for _, repeated in again):
        raise SystemExit("the same query again has another answer")
    boxes = sum(bool(result.objects) for result in results)
    return RepeatRun(first, Timings(tuple(seconds for seconds, _ in again)), boxes)


def run_handler(folder: Path, arguments: argparse.Namespace) -> HandlerRun:
    """Time one chat completion to rerank and one to ground each photo."""
    from llama_cpp.llama_grammar import LlamaGrammar

    from tests.bench.chat_handler import ChatHandlerJudge

    clock = CLOCKS[arguments.clock]
    images = pictures(arguments.candidates)
    handler = ChatHandlerJudge(
        folder, threads=arguments.threads, gpu=arguments.device != "cpu", flash=arguments.flash
    )
    handler.rerank(images[0], QUERY)
    reranked = [time_once(partial(handler.rerank, image, QUERY), clock) for image in images]
    grammar = LlamaGrammar.from_string(usual_form(handler.tokenize), verbose=False)
    to_ground = images[: arguments.keep]
    grounded = [time_once(partial(handler.ground, image, QUERY, grammar), clock) for image in to_ground]
    return HandlerRun(
        Timings(tuple(seconds for seconds, _ in reranked)),
        Timings(tuple(seconds for seconds, _ in grounded)),
        [margin for _, margin in reranked],
        [answer for _, answer in grounded],
        peak_memory(),
    )


def report(ours: JudgeRun, again: RepeatRun, plain: HandlerRun, keep: int) -> None:
    """Print the tables."""
    plain_ground, our_ground = sum(plain.ground.seconds) / keep, ours.ground / keep
    plain_rerank, our_rerank = (sum(run.rerank.seconds) / len(run.rerank.seconds) for run in (plain, ours))
    plain_query, our_query = plain_rerank * 100 + plain_ground * 50, our_rerank * 100 + our_ground * 50
    print_columns("per photo", PLAIN, OURS, "faster")
    ratio = plain.rerank.median / ours.rerank.median
    print_row("rerank, one question per photo", plain.rerank, ours.rerank, f"{ratio:.2f}x")
    mean = f"{format_seconds(our_ground)} (mean of {keep} written together)"
    print_row("ground, after reranking", plain.ground, mean, f"{plain_ground / our_ground:.2f}x")
    print_row(
        "**a query: 100 reranked, 50 grounded**",
        format_seconds(plain_query),
        format_seconds(our_query),
        f"{plain_query / our_query:.2f}x",
    )
    print()
    print_columns("within the judge", "without", "with", "faster")
    for saving, without, used in (
        ("8 questions about a photo: one prefix and one batch", ours.several_apart, ours.several),
        ("ground a photo: prefix kept", ours.ground_fresh / keep, our_ground),
        ("ground a photo: written together", ours.ground_one_by_one / keep, our_ground),
    ):
        print_row(saving, format_seconds(without), format_seconds(used), f"{without / used:.2f}x")
    print()
    print_columns("stage 2 of a query", "first", "again", "faster")
    faster = f"{again.first / again.again.median:.0f}x"
    print_row("the same query again", format_seconds(again.first), again.again, faster)
    print(f"\n{again.boxes} of {keep} results have a box; the repeats' are equal to the first's.")
    difference = np.abs(np.subtract(ours.margins, plain.margins)).max()
    print(f"\nPeak memory: {PLAIN} {plain.peak / 2**20:.0f} MiB, {OURS} {ours.peak / 2**20:.0f} MiB.")
    print(f"Largest difference of a margin: {difference:.4f}; their range: {np.ptp(ours.margins):.4f}.")
    alike = sum(full.startswith(text) for full, text in zip(plain.answers, ours.answers, strict=True))
    print(f"Equal answers: {alike} of {keep}.", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the model, run each way and print the tables."""
    parser = BenchParser(__doc__, arguments)
    parser.add_size("--candidates", 8, 2, "photos reranked")
    parser.add_size("--keep", 8, 2, "photos grounded")
    parser.add_size("--threads", 2, 1, "threads of both sides")
    parser.add_argument("--device", choices=["cpu", "auto"], default="cpu")
    parser.add_argument("--flash", action="store_true", help="flash attention in the handler; off by default")
    parser.add_clock()
    parser.add_argument("--folder", type=Path, help="where the model files are kept for another run")
    options = parser.options()
    print_heading(
        f"{options.candidates} random pictures of 448 x 336, {options.keep} grounded; "
        f"a Qwen2.5-VL {'of toy size' if parser.quick else 'of about 360 M parameters'} with random weights",
        "In the form of the work. Photos are larger (up to 1024 pixels) and the real models 8 to 20 times "
        "larger: encoding the photo then takes a larger share.",
        f"{options.device}, {options.threads} threads",
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "text.gguf").exists():
            in_new_process(build, folder, SMALL if parser.quick else FULL)
        ours = in_new_process(run_judge, folder, options)
        again = in_new_process(run_again, folder, options)
        plain = in_new_process(run_handler, folder, options)
    report(ours, again, plain, options.keep)


if __name__ == "__main__":
    main()
