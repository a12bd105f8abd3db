"""Registry of the parsers of strangers' files for `fuzz_parsers`, with valid inputs of each."""

import io
import json
import pickle
import shutil
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

import matir_cli.engines.llama_cpp.bindings  # noqa: F401 - keeps llama.cpp's log off stderr
from matir_cli import masks
from matir_cli.engines.clip.alpha_tower import Architecture, VisualTower
from matir_cli.engines.clip.checkpoint import read_text_tower
from matir_cli.engines.clip.image_towers import load_image_tower
from matir_cli.engines.clip.tokenizer import load_tokenizer
from matir_cli.engines.options import read_options
from matir_cli.engines.qwen_vl.boxes import ImageSize, expected_continuation, parse_answer
from matir_cli.engines.qwen_vl.family import QWEN2_5_VL
from matir_cli.engines.qwen_vl.preflight import check_files
from matir_cli.engines.registry import OPTIONS
from matir_cli.engines.siglip.image_tower import SiglipImageTower
from matir_cli.engines.siglip.image_tower import load_image_tower as load_siglip_tower
from matir_cli.engines.siglip.tokenizer import load_tokenizer as load_gemma_tokenizer
from matir_cli.engines.tensors.torch_checkpoint import read_tensors
from matir_cli.engines.tensors.torchscript import is_torchscript, read_torchscript_tensors
from matir_cli.evaluation.datasets.coco import read_coco
from matir_cli.evaluation.datasets.d3 import read_d3
from matir_cli.gallery.brush_rle import decode_brush, encode_brush
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.annotations import AnnotationFile
from matir_cli.indexing.corrections import CorrectionCounts, import_tasks, read_tasks
from matir_cli.indexing.pipeline import IndexingModels, add_photos
from matir_cli.model_sets.catalogue import load_model_set, read_model_set
from matir_cli.model_sets.weights import local_path
from matir_cli.models.tiny import benchmark, world
from matir_cli.models.tiny.grammar import parse
from matir_cli.output.sidecars import Sidecar
from matir_cli.output.xmp import XmpTag
from matir_cli.photos.descriptive import clean_keywords, iptc_keywords
from matir_cli.photos.discover import stat_file
from matir_cli.photos.siblings import describe_file
from matir_cli.records import Box, FileMetadata, PhotoRecord, Rle
from tests.fuzz.http_parser import RESPONSES, fetch_response
from tests.photos.packets import bag, described
from tests.support.clip_weights import save_small_vocabulary, save_torchscript
from tests.support.fakes import ColourEncoder, ColourProposer
from tests.support.gguf_edit import read_gguf
from tests.support.pictures import save_scenes
from tests.support.siglip_weights import random_strings, save_gemma_tokenizer


@dataclass(frozen=True)
class Parser:
    """One row of the registry."""

    read: Callable[[bytes, Path], object]
    """Reads an input; may write into the folder, which is empty at first. Raises `MatirError` alone."""
    seeds: list[bytes]
    """Valid inputs."""


def file_reader(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """Make a reader of bytes from one of a file called `name`."""

    def read_bytes(content: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(content)
        return read(path)

    return read_bytes


@cache
def made(name: str) -> bytes:
    """Return a valid file that a writer of the tests makes."""
    writers: dict[str, Callable[[Path], object]] = {
        "tokenizer.json": save_small_vocabulary,
        "gemma/tokenizer.json": lambda path: save_gemma_tokenizer(
            path.parent, random_strings(20, 1), size=300
        ),
        "clip.pt": lambda path: save_torchscript({"visual.proj": torch.zeros(3, 2)}, path),
        "weights.pt": lambda path: torch.save(
            {"model": {"a": torch.zeros(3), "b": torch.ones(2, 2).half(), "c": torch.zeros(4, 4)[:, 1]}}, path
        ),
    }
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        writers[name](Path(folder) / name)
        return (Path(folder) / name).read_bytes()


# Weights


def small_clip() -> bytes:
    """Return a CLIP as .safetensors whose towers have one layer of width 8."""
    image = VisualTower(Architecture(8, 1, 1, 2, 2, 4)).state_dict()
    state = {f"visual.{name.replace('in_proj.', 'in_proj_')}": value for name, value in image.items()}
    text = {
        "token_embedding.weight": (20, 8),
        "positional_embedding": (6, 8),
        "ln_final.weight": (8,),
        "ln_final.bias": (8,),
        "text_projection": (8, 4),
        "transformer.resblocks.0.attn.in_proj_weight": (24, 8),
        "transformer.resblocks.0.attn.in_proj_bias": (24,),
    }
    return save({**state, **{name: torch.zeros(shape) for name, shape in text.items()}})


def read_clip(path: Path) -> None:
    """Load both towers of a CLIP."""
    load_image_tower(path, None, "cpu", "float32")
    tower = read_text_tower(path)
    tower.shape("text_projection.weight")


def small_siglip() -> bytes:
    """Return the image tower of a SigLIP as .safetensors, with one layer of width 8."""
    torch.manual_seed(0)
    state = SiglipImageTower(8, 16, 1, 1, 2, 2).state_dict()
    return save({f"vision_model.{name}": torch.zeros_like(value) for name, value in state.items()})


def read_gemma(path: Path) -> None:
    """Load Gemma's tokenizer, and encode a short and a long text."""
    tokenizer = load_gemma_tokenizer(path)
    for text in ("Dog <h1>\u72d7 x", "long " * 60):
        tokenizer.tokenize(text, 64)


def header_of(content: bytes) -> bytes:
    """Return the JSON header of a .safetensors file."""
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def with_length(header: bytes, folder: Path) -> None:
    """Read a .safetensors file with the given header, of the right length, before 8 KiB of numbers."""
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8192))
    read_clip(folder / "a.safetensors")


def with_pickle(archive: bytes, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """Make a reader that puts its input into a zip archive in place of "data.pkl"."""

    def read_bytes(content: bytes, folder: Path) -> object:
        path = folder / "weights.pt"
        with zipfile.ZipFile(io.BytesIO(archive)) as stored, zipfile.ZipFile(path, "w") as target:
            for member in stored.infolist():
                is_pickle = member.filename.endswith("data.pkl")
                target.writestr(member.filename, content if is_pickle else stored.read(member))
        return read(path)

    return read_bytes


def pickle_in(archive: bytes) -> bytes:
    """Return the pickle "data.pkl" of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as stored:
        (name,) = (name for name in stored.namelist() if name.endswith("data.pkl"))
        return stored.read(name)


def read_checkpoint(path: Path) -> None:
    """Read a state dict under "model" and without a key."""
    read_tensors(path, "model")
    is_torchscript(path)


def read_script(path: Path) -> None:
    """Read a TorchScript archive, whatever it looks like."""
    is_torchscript(path)
    read_torchscript_tensors(path, lambda _: True)


def read_judge_header(content: bytes, folder: Path) -> None:
    """Check a projector with the given header beside the tiny text model."""
    with (folder / "projector.gguf").open("wb") as file:
        file.write(content)
        file.truncate(1 << 22)
    check_files(_TINY["model"], folder / "projector.gguf", QWEN2_5_VL)


_TINY = {file.role: path for file in load_model_set("tiny").part("judge").files if (path := local_path(file))}

# Model sets


def read_set(path: Path) -> None:
    """Read a model set and the options of its engines."""
    for part in read_model_set(path, "fuzz").parts:
        if part.engine in OPTIONS:
            read_options(part.options, OPTIONS[part.engine], part.name)


MODEL_SET = b"""
name = "mine"
description = "one line"
note = "another"
[proposer]
name = "sam2"
engine = "sam2"
licence = "MIT"
[proposer.options]
image_size = 1024
stability_offset = 1.5
architecture = { stages = [1, 2, 7, 2], embed_dim = 96, num_heads = 1 }
[proposer.files.checkpoint]
url = "https://example.org/sam2.pt"
mirrors = ["https://example.net/sam2.pt"]
bytes = 1000
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
[encoder]
name = "clip"
engine = "alpha_clip"
licence = "MIT"
[encoder.options]
prompts = ["a photo of a {}."]
[encoder.files.visual]
hub = "owner/repo"
file = "a/b.pth"
revision = "main"
about_bytes = 2000
[judge]
name = "qwen"
engine = "qwen_vl"
licence = "MIT"
[judge.options]
max_pixels = 50176
[judge.files.model]
path = "tiny/model.gguf"
"""

# Judge's answers

ANSWERS = [
    b'```json\n[\n\t{"bbox_2d": [12, 345, 67, 890], "label": "dog led by rope"}\n]\n```',
    b'{"label": "a", "bbox_2d": [1.5, 2, 3, 4]}',
    b"[]",
]


def read_answer(content: bytes, _: Path) -> None:
    """Parse an answer; its boxes lie within the image."""
    text = content.decode(errors="replace")
    expected_continuation(text, "a dog")
    for box in parse_answer(text, ImageSize(56, 84), ImageSize(100, 150)).boxes:
        assert 0 <= box.x0 < box.x1 <= 150, box
        assert 0 <= box.y0 < box.y1 <= 100, box


# Annotations


@cache
def annotated() -> Path:
    """Return a folder with two drawn pictures as COCO and as D3, written once."""
    folder = Path(tempfile.mkdtemp(prefix="matir-fuzz-seeds-"))
    pictures = [world.picture(seed) for seed in range(2)]
    benchmark.write_d3(folder, pictures, [parse("ball"), parse("red house")])
    return folder


COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 3, "iscrowd": 0, "area": 4.0, "bbox": [0, 0, 2, 2],
             "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},
            {"id": 6, "image_id": 1, "category_id": 3, "iscrowd": 0, "area": 4.0, "bbox": [0, 0, 2, 2],
             "segmentation": {"size": [6, 8], "counts": [10, 4, 34]}},
        ],
    }
).encode()  # fmt: skip


def read_coco_bytes(content: bytes, folder: Path) -> None:
    """Read COCO annotations of one image, which exists."""
    (folder / "a.png").write_bytes(b"not decoded here")
    (folder / "instances.json").write_bytes(content)
    read_coco(folder, folder / "instances.json")


def read_regions(path: Path) -> None:
    """Read COCO annotations as regions of one photo of 8 x 6 pixels."""
    file = AnnotationFile.read(path)
    found = file.convert(file.images_named(["a.png"]), SMALL)
    for region in found.regions:
        assert masks.decode(region.rle).shape == (6, 8)
    for prompt in found.boxes:
        assert 0 <= prompt.box.x0 < prompt.box.x1 <= 8 + 1e-6, prompt


@cache
def corrected() -> tuple[Path, bytes]:
    """Return a gallery of one photo, and an export of Label Studio with a mask and a polygon in it."""
    folder = Path(tempfile.mkdtemp(prefix="matir-fuzz-corrections-"))
    (photo,) = save_scenes(folder / "photos", a="red green")
    with GalleryFile.open(folder / "gallery.db", create=True) as gallery:
        list(add_photos(gallery, [photo], ENGINES, previews=True))
        record, region = gallery.photo(1).record, gallery.regions(1)[1]
    mask = encode_brush(masks.decode(region.region.rle))
    size = {"original_width": record.width, "original_height": record.height, "image_rotation": 0}
    values: list[dict[str, object]] = [
        {"type": "brushlabels", "value": {"format": "rle", "rle": mask, "brushlabels": ["red"]}},
        {"type": "polygonlabels", "value": {"points": [[1, 1], [50, 1], [50, 50]], "polygonlabels": ["x"]}},
        {"type": "rectanglelabels", "value": {"x": 5, "y": 5, "width": 20, "height": 9}},
    ]
    result = [{"id": f"region-{number + 2}", **size, **value} for number, value in enumerate(values)]
    known = {"sha256": record.sha256.hex(), "query": "red", "predicted": ["region-2", "region-3"]}
    task = {"id": 1, "data": {"image": "a.png", "matir": known}, "annotations": [{"id": 2, "result": result}]}
    return folder / "gallery.db", json.dumps([task]).encode()


def read_corrections(content: bytes, folder: Path) -> None:
    """Import corrections into a copy of the gallery."""
    (folder / "export.json").write_bytes(content)
    shutil.copy(corrected()[0], folder / "gallery.db")
    counts = CorrectionCounts()
    with GalleryFile.open(folder / "gallery.db") as gallery:
        gallery.connection.pragma("synchronous", "off")
        for _ in import_tasks(gallery, read_tasks(folder / "export.json"), ENGINES, counts):
            pass
        for region in gallery.regions(1):
            masks.check(region.region.rle)


def read_brush(content: bytes, _: Path) -> None:
    """Decode a brush mask of 8 x 6 pixels."""
    try:
        assert decode_brush(content, 8, 6).shape == (6, 8)
    except ValueError:  # its documented error
        return


def d3_reader(table: str) -> Callable[[bytes, Path], object]:
    """Make a reader of D3 of which one table is replaced."""

    def read_bytes(content: bytes, folder: Path) -> object:
        source = annotated()
        for name in ("images", "annotations", "sentences"):
            whole = (source / "d3_pkl" / f"{name}.pkl").read_bytes()
            (folder / f"{name}.pkl").write_bytes(content if name == table else whole)
        return read_d3(source / "d3_images", folder)

    return read_bytes


def d3_seeds(table: str) -> list[bytes]:
    """Return the table as it is published, and in the oldest protocol, which is text."""
    content = (annotated() / "d3_pkl" / f"{table}.pkl").read_bytes()
    return [content, pickle.dumps(pickle.loads(content), 0)]  # noqa: S301 - written here


def read_mask(content: bytes, _: Path) -> None:
    """Check a mask of 6 x 8 pixels, and decode it if it is sound."""
    rle = Rle(6, 8, content)
    try:
        masks.check(rle)
    except ValueError:  # its documented error
        return
    assert masks.decode(rle).shape == (6, 8)
    assert masks.area(rle) <= 48


# XMP

XMP = b"""<?xml version="1.0"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/" xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"
 xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"><rdf:Description rdf:about="">
<dc:subject><rdf:Bag><rdf:li>dog</rdf:li></rdf:Bag></dc:subject>
<mwg-rs:Regions rdf:parseType="Resource">
<mwg-rs:AppliedToDimensions stDim:w="100" stDim:h="80" stDim:unit="pixel"/>
<mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType="Resource"><mwg-rs:Name>dog</mwg-rs:Name>
<mwg-rs:Area stArea:x="0.5" stArea:y="0.5" stArea:w="0.2" stArea:h="0.1" stArea:unit="normalized"/>
</rdf:li></rdf:Bag>
</mwg-rs:RegionList></mwg-rs:Regions></rdf:Description></rdf:RDF></x:xmpmeta>"""


KEYWORDS = described(
    'xmp:Rating="3.0" exif:GPSLatitude="48,30.5N" exif:GPSLongitude="2,20W" MicrosoftPhoto:Rating="99"',
    bag("dc:subject", "a", "b") + bag("lr:hierarchicalSubject", "A|B", kind="Seq"),
)

IPTC = b"\x1c\x01\x5a\0\x03\x1b%G\x1c\x02\x19\0\x01a\x1c\x02\x78\0\x04text\x1c\x02\x19\0\x03b c"


def read_sidecar(path: Path) -> None:
    """Add a label and a region to a sidecar and write it back."""
    sidecar = Sidecar(path)
    sidecar.add(XmpTag("dog", (Box(10, 10, 30, 18),)), PHOTO)
    sidecar.write()
    sidecar.remove("dog")


ENGINES = IndexingModels(ColourProposer, ColourEncoder)

SMALL = PhotoRecord(bytes(32), 8, 6, 8, 6, 1)

PHOTO = PhotoRecord(bytes(32), 100, 80, 100, 80, 1)


def read_metadata_of_sidecar(path: Path) -> None:
    """Read rating, keywords and position of a sidecar."""
    found = describe_file(FileMetadata(), stat_file(path)).metadata
    assert found.rating in (None, *range(-1, 6))
    assert found.keywords == clean_keywords(found.keywords)
    assert found.latitude is None or -90 <= found.latitude <= 90


PARSERS: dict[str, Parser] = {
    "safetensors": Parser(file_reader("a.safetensors", read_clip), [small_clip()]),
    "safetensors header": Parser(
        with_length, [small_clip()[8 : 8 + int.from_bytes(small_clip()[:8], "little")]]
    ),
    "torch checkpoint": Parser(file_reader("weights.pt", read_checkpoint), [made("weights.pt")]),
    "torch pickle": Parser(with_pickle(made("weights.pt"), read_checkpoint), [pickle_in(made("weights.pt"))]),
    "torchscript": Parser(file_reader("clip.pt", read_script), [made("clip.pt")]),
    "torchscript pickle": Parser(with_pickle(made("clip.pt"), read_script), [pickle_in(made("clip.pt"))]),
    "siglip": Parser(
        file_reader("a.safetensors", lambda path: load_siglip_tower(path, 1, "cpu", "float32")),
        [small_siglip()],
    ),
    "gemma tokenizer": Parser(file_reader("tokenizer.json", read_gemma), [made("gemma/tokenizer.json")]),
    "tokenizer": Parser(file_reader("tokenizer.json", load_tokenizer), [made("tokenizer.json")]),
    "gguf header": Parser(read_judge_header, [read_gguf(_TINY["projector"]).pack_header()]),
    "model set": Parser(file_reader("set.toml", read_set), [MODEL_SET]),
    "http response": Parser(fetch_response, RESPONSES),
    "judge answer": Parser(read_answer, ANSWERS),
    "coco": Parser(read_coco_bytes, [COCO]),
    "regions": Parser(file_reader("instances.json", read_regions), [COCO]),
    "corrections": Parser(read_corrections, [corrected()[1]]),
    "brush": Parser(read_brush, [bytes(encode_brush(np.eye(6, 8, dtype=np.bool_)))]),
    **{
        f"d3 {table}": Parser(d3_reader(table), d3_seeds(table))
        for table in ("images", "annotations", "sentences")
    },
    "mask": Parser(read_mask, [masks.whole(6, 8).counts, b"X113032", b"05`1"]),
    "xmp": Parser(file_reader("a.xmp", read_sidecar), [XMP]),
    "xmp metadata": Parser(file_reader("a.xmp", read_metadata_of_sidecar), [XMP, KEYWORDS]),
    "iptc": Parser(lambda content, _: clean_keywords(iptc_keywords(content)), [IPTC]),
}
"""Parsers by name."""
