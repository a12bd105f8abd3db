"""Further training of the tiny Qwen2.5-VL: vision tower and language model together.

In the stages of `train_qwen_vl`, the vision tower stays as its own stage left it, without having seen a
question. Here both learn from the answers alone. The temporary heads of those stages are left out: new
ones would have to be learnt first, and until then disturb what they read. At the end, the weights are
averaged with those that the training started from, which keeps what it has forgotten ("Robust fine-tuning
of zero-shot models", Wortsman et al., CVPR 2022).

It starts from the weights in the package; what it gained is in the manual, page models.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration

from matir_cli.models.tiny import qwen_model, recipe
from matir_cli.models.tiny.gguf_reader import read_gguf
from matir_cli.models.tiny.train_qwen_vl import (
    PICTURES,
    ModelWithPointer,
    QuestionBatch,
    QuestionTokenizer,
    make_tokenizer,
    measure_accuracy,
    write,
)

FORMS = {"kind": 0.5, "look": 2.0, "part": 2.5, "not": 1.5, "side": 4.0, "inside": 2.0, "tied to": 3.0}
"""Frequencies of the forms of questions; more about parts and ropes, in which the judge errs most."""

STAGE = recipe.Schedule("qwen_together", steps=350, rate=2e-4, warm_up=30, report_every=50)

OFFSET = 700_000
"""First training picture of the stage."""

QUESTIONS, BOXES = 14, 1
"""True/False questions and boxes per picture in one step."""

PACKAGE = Path(__file__).parent
"""Folder of the weights in the package."""


class Answers(nn.Module):
    """The model, with the loss of its answers."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration) -> None:
        """Train all of `model`."""
        super().__init__()
        self.model = model.requires_grad_(True)

    def forward(self, batch: QuestionBatch) -> Tensor:
        """The cross-entropy of a batch, every answer counting as one; a scalar."""
        visual_tokens = qwen_model.encode_patches(self.model.model.visual, batch.patches)
        logits, _ = qwen_model.predict(self.model, visual_tokens, batch.trees)
        each = functional.cross_entropy(logits, batch.trees.targets, reduction="none")
        total: Tensor = (each * batch.trees.weights).sum() / batch.answers
        return total


def train_together(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: QuestionTokenizer,
    folder: Path,
    scale: float,
    device: torch.device,
) -> None:
    """Run the stage on a trained `model`, in place.

    Args:
        scale: factor for the number of steps.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    answers = Answers(model).to(device)
    measured = ModelWithPointer(model).to(device)  # its pointing head is untrained and not used

    def step(number: int) -> Tensor:
        first = OFFSET + number * PICTURES
        pictures = list(recipe.pictures(first, PICTURES))
        batch = QuestionBatch(tokenizer, pictures, FORMS, first, device, counts=(QUESTIONS, BOXES))
        with recipe.autocast(device):
            loss: Tensor = answers(batch)
        return loss

    def report() -> str:
        figures: str = measure_accuracy(measured, tokenizer, FORMS, True, device)
        return figures

    recipe.train(answers, STAGE.scaled(scale), step, report, folder)
    after = model.state_dict()
    model.load_state_dict({name: (tensor + after[name]) / 2 for name, tensor in before.items()})
    with torch.no_grad():
        recipe.log.info("averaged: %s", report())


def train(folder: Path, scale: float, device: torch.device) -> tuple[Path, Path]:
    """Run the stage in `folder` from the weights in the package; return the files written there.

    Args:
        scale: factor for the number of steps.
    """
    torch.manual_seed(4)
    tokenizer = QuestionTokenizer(make_tokenizer())
    model = qwen_model.build(tokenizer.tokenizer)
    read_gguf(model, PACKAGE / "qwen_vl.gguf", PACKAGE / "qwen_vl_projector.gguf")
    train_together(model.to(device), tokenizer, folder, scale, device)
    text, projector = write(model, tokenizer.tokenizer, folder)
    return text, projector
