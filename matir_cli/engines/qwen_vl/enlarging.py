"""Photos for box questions: small ones are enlarged, since Qwen's boxes are poor in few image tokens.

llama.cpp warns that Qwen's vision models need at least 1024 image tokens for boxes; a comment in its issue
16842 (https://github.com/ggml-org/llama.cpp/issues/16842) recommends 1024 to 2048. Only box questions get the
enlarged photo: there are many more questions for True or False.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from matir_cli.engines.protocols import GroundingQuestion, JudgePhoto
from matir_cli.engines.qwen_vl.boxes import ImageSize, smart_resize
from matir_cli.engines.qwen_vl.options import QwenVlOptions
from matir_cli.records import ImageArray


@dataclass(frozen=True, slots=True)
class BoxQuestion:
    """A question for boxes, and the photo as the model is to see it."""

    asked: GroundingQuestion
    """The question; boxes are returned in pixels of its photo."""
    photo: JudgePhoto
    """The same photo, or an enlarged one, which has a prefix of its own."""


def enlarge_photo(question: GroundingQuestion, seen: ImageSize, options: QwenVlOptions) -> BoxQuestion:
    """Enlarge the question's photo to `ground_min_pixels`, unless the model sees it as large anyway.

    A photo so long that it would exceed `max_pixels`, since both sides are rounded up, stays as it is.

    Args:
        seen: the size in which the model sees the photo for other questions.
    """
    photo = question.photo
    height, width = photo.image.shape[:2]
    least = max(options.min_pixels, options.ground_min_pixels)
    size = smart_resize(height, width, least, options.max_pixels, options.FAMILY.factor)
    if seen.height * seen.width >= options.ground_min_pixels or size.height * size.width > options.max_pixels:
        return BoxQuestion(question, photo)
    return BoxQuestion(question, replace(photo, image=resize_image(photo.image, size)))


def resize_image(image: ImageArray, size: ImageSize) -> ImageArray:
    """Return the image in this size."""
    if image.shape[:2] == (size.height, size.width):
        return image
    return np.asarray(Image.fromarray(image).resize((size.width, size.height), Image.Resampling.BICUBIC))
