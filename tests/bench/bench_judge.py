"""The judge beside llama-cpp-python's own chat handler: the same model, photos and questions, in one run.

    python -m tests.bench.bench_judge [--candidates 8] [--keep 8] [--threads 2] [--device cpu|auto]
        [--flash] [--clock wall|cpu]

A Qwen2.5-VL of about 360 M parameters with random weights (text model Q4_K_M, projector
float16, as the real sets have them). The plain way is one `create_chat_completion` to rerank
and one to ground each photo. Random weights know no JSON, so in both ways a grammar lets an
answer be nothing but the usual form, token for token: one box with three digits a number. What
is drafted is then right, as it nearly always is with trained weights. The same query again goes
through stage 2 from stored photos to results, without stage 1. Each way has a process of its
own, so that its memory can be told. Prints Markdown tables.
"""

import argparse
import base64
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from matir_cli import masks
from matir_cli.engines.llama_cpp.bindings import LanguageModel, amx_present
from matir_cli.engines.protocols import GroundingQuestion, Judge, JudgePhoto
from matir_cli.engines.qwen_vl import judge
from matir_cli.engines.qwen_vl.boxes import EXPECTED_START
from matir_cli.engines.qwen_vl.judge import GROUND, HEAD, RERANK, TAIL, load_qwen_vl_judge
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

QUERY = "dog led by rope"
SEVERAL = [f"{QUERY} {number}" for number in range(8)]
PLAIN, OURS = "chat handler", "judge"
REPEATS = 5


def usual_form(tokenize: Callable[[str], list[int]]) -> str:
    """A grammar of exact tokens: the usual answer, free digits in corners that lie in order."""

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


def build(folder: Path) -> None:
    """Writes text.gguf (Q4_K_M) and projector.gguf (F16)."""
    import ctypes

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
            "vocab_size": 32000,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        },
        vision_config={
            "depth": 16,
            "hidden_size": 640,
            "intermediate_size": 1728,
            "num_heads": 8,
            "out_hidden_size": 1024,
            "fullatt_block_indexes": [3, 7, 11, 15],
        },
        tie_word_embeddings=True,
    )
    with torch.device("cpu"):
        model = Qwen2_5_VLForConditionalGeneration(config).half()
    write_gguf(model, tokenizer, folder / "text-f16.gguf", folder / "projector.gguf", precision="f16")
    print(f"{model.num_parameters() / 1e6:.0f} M parameters", file=sys.stderr)
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


def timed(work: Callable[[], object], clock: str) -> float:
    """Seconds that `work` takes, on the wall or of all processors together."""
    now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
    start = now()
    work()
    return now() - start


def judge_config(folder: Path, arguments: argparse.Namespace) -> EngineConfig:
    """The judge's configuration; from here on its answers have the usual form."""
    vocabulary = LanguageModel(folder / "text.gguf", gpu_layers=0)
    judge.ANSWER_GRAMMAR = usual_form(vocabulary.tokenize)
    vocabulary.close()
    files = {"model": folder / "text.gguf", "projector": folder / "projector.gguf"}
    return EngineConfig("qwen_vl", {"threads": arguments.threads}, files, ModelIdentity("bench", "0"))


def run_judge(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """What the package does, and its parts."""
    config = judge_config(folder, arguments)
    clock = arguments.clock
    looked_at = [JudgePhoto(key, image) for key, image in enumerate(pictures(arguments.candidates))]
    with load_qwen_vl_judge(config, arguments.device) as judge:
        judge.rerank(JudgePhoto(-1, looked_at[0].image), [QUERY])
        margins: list[float] = []
        rerank = timed(
            lambda: margins.extend(judge.rerank(photo, [QUERY])[0].margin for photo in looked_at), clock
        )
        questions = [GroundingQuestion(photo, QUERY) for photo in looked_at[: arguments.keep]]
        answers: list[str] = []
        ground = timed(lambda: answers.extend(found.answer for found in judge.ground(questions)), clock)
        one_by_one = timed(lambda: [judge.ground([question]) for question in questions], clock)
        several = timed(lambda: [judge.rerank(photo, SEVERAL) for photo in looked_at[:1]], clock)
    config = replace(config, options={**config.options, "prefix_cache_mib": 0})
    with load_qwen_vl_judge(config, arguments.device) as judge:
        fresh = timed(lambda: judge.ground(questions), clock)
        apart = timed(
            lambda: [
                judge.rerank(JudgePhoto(photo.key * 100 + number, photo.image), [query])
                for photo in looked_at[:1]
                for number, query in enumerate(SEVERAL)
            ],
            clock,
        )
    return {
        "rerank": rerank,
        "ground": ground,
        "one_by_one": one_by_one,
        "fresh": fresh,
        "several": several,
        "apart": apart,
        "margins": margins,
        "answers": answers,
    }


def fill(gallery: GalleryFile, images: list[ImageArray]) -> list[Candidate]:
    """Store the pictures with their previews, the whole photo and four boxes as regions each."""
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


def run_again(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """A query through stage 2, and the same query again: the gallery opened anew, no judge at hand."""
    config = judge_config(folder, arguments)
    key = identify_config(config).identity.weight_hash

    def no_judge() -> Judge:
        raise SystemExit("the judge was wanted for what is remembered")

    def query(path: Path, candidates: list[Candidate], judge: Callable[[], Judge]) -> list[SearchResult]:
        with GalleryFile.open(path) as gallery:
            room = JudgeSession(gallery, judge, VerdictCache(gallery, key, QUERY), QUERY)
            ranking = order_by_verdict(list(rerank_candidates(room, candidates)))
            return list(results_by_box(room, ranking[: arguments.keep], MatchOptions()))

    results: list[list[SearchResult]] = []
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "gallery.db"
        with GalleryFile.open(path, create=True) as gallery:
            candidates = fill(gallery, pictures(arguments.candidates))
        with load_qwen_vl_judge(config, arguments.device) as judge:
            # Under a key that no photo has; what loading and warming up cost is not counted.
            judge.rerank(JudgePhoto(-1, pictures(1)[0]), [QUERY])
            first = timed(lambda: results.append(query(path, candidates, lambda: judge)), arguments.clock)
        again = [
            timed(lambda: results.append(query(path, candidates, no_judge)), arguments.clock)
            for _ in range(REPEATS)
        ]
    if any(result != results[0] for result in results):
        raise SystemExit("the same query again has another answer")
    boxes = sum(bool(found.objects) for found in results[0])
    return {"first": first, "again": max(again), "boxes": boxes}


def run_handler(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """One chat completion to rerank and one to ground each photo."""
    import llama_cpp.llama_cpp as low_level
    from llama_cpp import Llama, LlamaGrammar, LogitsProcessorList
    from llama_cpp.llama_chat_format import Qwen25VLChatHandler

    class WholePrompt(Qwen25VLChatHandler):  # type: ignore[misc]
        """Jinja takes the line break off the end of the handler's prompt; two leave one."""

        CHAT_FORMAT = Qwen25VLChatHandler.CHAT_FORMAT + "\n"

    defaults = low_level.llama_model_default_params

    def as_in_the_judge() -> object:
        """Off where llama.cpp's matrix tiles may end the process; `Llama` has no setting for it."""
        params = defaults()
        params.use_extra_bufts = not amx_present()
        return params

    low_level.llama_model_default_params = as_in_the_judge
    llama = Llama(
        str(folder / "text.gguf"),
        chat_handler=WholePrompt(str(folder / "projector.gguf"), verbose=False),
        n_ctx=2048,
        n_threads=arguments.threads,
        n_threads_batch=arguments.threads,
        n_gpu_layers=0 if arguments.device == "cpu" else -1,
        flash_attn=arguments.flash,
        verbose=False,
    )
    true, false = (llama.tokenize(word, add_bos=False)[0] for word in (b"True", b"False"))
    margins: list[float] = []

    def note(_: object, scores: np.ndarray) -> np.ndarray:
        margins.append(float(scores[true]) - float(scores[false]))
        return scores

    def ask(image: ImageArray, question: str, **settings: object) -> str:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=1)
        address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        content = [{"type": "image_url", "image_url": address}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        reply = llama.create_chat_completion(messages, temperature=0.0, repeat_penalty=1.0, **settings)
        return str(reply["choices"][0]["message"]["content"])

    def rerank(image: ImageArray) -> None:
        ask(image, RERANK + QUERY, max_tokens=1, logits_processor=LogitsProcessorList([note]))

    clock = arguments.clock
    images = pictures(arguments.candidates)
    rerank(images[0])
    margins.clear()
    rerank_time = timed(lambda: [rerank(image) for image in images], clock)
    form = LlamaGrammar.from_string(
        usual_form(lambda text: llama.tokenize(text.encode(), add_bos=False)), verbose=False
    )
    answers: list[str] = []
    ground_time = timed(
        lambda: answers.extend(
            ask(image, GROUND + QUERY, max_tokens=100, grammar=form) for image in images[: arguments.keep]
        ),
        clock,
    )
    return {"rerank": rerank_time, "ground": ground_time, "margins": margins, "answers": answers}


PARTS = {"judge": run_judge, "again": run_again, "handler": run_handler}


def report(
    ours: dict[str, float], again: dict[str, float], plain: dict[str, float], arguments: argparse.Namespace
) -> None:
    """The tables."""
    candidates, keep = arguments.candidates, arguments.keep
    ours_all, plain_all = (
        run["rerank"] * 100 / candidates + run["ground"] * 50 / keep for run in (ours, plain)
    )
    rows = [
        ("rerank, one question a photo", plain["rerank"] / candidates, ours["rerank"] / candidates),
        ("ground, photos reranked before", plain["ground"] / keep, ours["ground"] / keep),
        ("**a query: 100 reranked, 50 grounded**", plain_all, ours_all),
    ]
    print(f"| seconds a photo, {candidates} reranked, {keep} grounded | {PLAIN} | {OURS} | faster |")
    print("|---|---|---|---|")
    for name, slow, fast in rows:
        print(f"| {name} | {slow:.2f} | {fast:.2f} | {slow / fast:.2f}x |")
    print("\n| within the judge, seconds a photo | without | with | faster |\n|---|---|---|---|")
    parts = [
        ("8 questions: one prefix and one batch", ours["apart"], ours["several"]),
        ("ground: prefix kept", ours["fresh"] / keep, ours["ground"] / keep),
        ("ground: written together", ours["one_by_one"] / keep, ours["ground"] / keep),
    ]
    for name, slow, fast in parts:
        print(f"| {name} | {slow:.2f} | {fast:.2f} | {slow / fast:.2f}x |")
    print("\n| stage 2, seconds a query | first | again | faster |\n|---|---|---|---|")
    first, second = again["first"], again["again"]
    name = f"the same query again, slowest of {REPEATS}"
    print(f"| {name} | {first:.2f} | {second:.4f} | {first / second:.0f}x |")
    print(f"\n{again['boxes']} of {keep} results have a box; the repeats' are equal to the first's.")
    apart = np.abs(np.subtract(ours["margins"], plain["margins"])).max()
    print(f"\nPeak memory: {PLAIN} {plain['peak']:.0f} MiB, {OURS} {ours['peak']:.0f} MiB.")
    print(f"Largest difference of a margin: {apart:.4f}, their spread: {np.ptp(ours['margins']):.4f}.")
    alike = sum(
        full.startswith(answer) for full, answer in zip(plain["answers"], ours["answers"], strict=True)
    )
    print(f"Answers alike: {alike} of {keep}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--keep", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--flash", action="store_true", help="flash attention in the handler, off by default there"
    )
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine that is busy"
    )
    parser.add_argument("--folder", type=Path, help="where the models lie or are put")
    parser.add_argument("--part", choices=["build", *PARTS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part == "build":
        build(arguments.folder)
    elif arguments.part:
        result = PARTS[arguments.part](arguments.folder, arguments)
        result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.folder or Path(temporary)
            command = [
                sys.executable,
                "-m",
                "tests.bench.bench_judge",
                *sys.argv[1:],
                "--folder",
                str(folder),
            ]
            if not (folder / "text.gguf").exists():
                subprocess.run([*command, "--part", "build"], check=True, stdout=sys.stderr)
            results = [
                json.loads(
                    subprocess.run([*command, "--part", part], check=True, stdout=subprocess.PIPE).stdout
                )
                for part in PARTS
            ]
            report(*results, arguments)


if __name__ == "__main__":
    main()
