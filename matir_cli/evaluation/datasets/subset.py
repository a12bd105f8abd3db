"""A part of a data set, for a first look that does not take hours."""

from dataclasses import replace

from matir_cli.evaluation.datasets.dataset import Dataset


def limit_dataset(dataset: Dataset, images: int | None, queries: int | None) -> Dataset:
    """The first `images` images and `queries` queries spread evenly over the list; None takes all.

    What was cut is among the notes: figures of a part are not those of the whole.
    """
    count = len(dataset.images) if images is None else min(images, len(dataset.images))
    asked = len(dataset.queries) if queries is None else min(queries, len(dataset.queries))
    if (count, asked) == (len(dataset.images), len(dataset.queries)):
        return dataset
    # Not the first ones: lists of queries tend to be sorted by kind.
    kept = tuple(dataset.queries[place * len(dataset.queries) // asked] for place in range(asked))
    shown = dataset.images[:count]
    ids = {image.id for image in shown}
    truth = {
        query.id: {image: rles for image, rles in dataset.truth.get(query.id, {}).items() if image in ids}
        for query in kept
    }
    note = (
        f"a part of the data set: {count:,} of {len(dataset.images):,} images, "
        f"{asked:,} of {len(dataset.queries):,} queries"
    )
    return replace(dataset, images=shown, queries=kept, truth=truth, notes=(*dataset.notes, note))
