"""Subsets of a data set, for evaluations that take minutes instead of hours."""

from dataclasses import replace

from matir_cli.evaluation.datasets.dataset import Dataset


def limit_dataset(dataset: Dataset, images: int | None, queries: int | None) -> Dataset:
    """Keep the first `images` images, and `queries` queries spread evenly over the list; None keeps all.

    A note says what was left out, since figures of a part are not those of the whole.
    """
    image_count = len(dataset.images) if images is None else min(images, len(dataset.images))
    query_count = len(dataset.queries) if queries is None else min(queries, len(dataset.queries))
    if (image_count, query_count) == (len(dataset.images), len(dataset.queries)):
        return dataset
    # Not the first queries: lists of queries tend to be sorted by kind.
    kept_queries = tuple(
        dataset.queries[index * len(dataset.queries) // query_count] for index in range(query_count)
    )
    kept_images = dataset.images[:image_count]
    ids = {image.id for image in kept_images}
    truth = {
        query.id: {i: rles for i, rles in dataset.truth.get(query.id, {}).items() if i in ids}
        for query in kept_queries
    }
    note = (
        f"a part of the data set: {image_count:,} of {len(dataset.images):,} images, "
        f"{query_count:,} of {len(dataset.queries):,} queries"
    )
    return replace(
        dataset, images=kept_images, queries=kept_queries, truth=truth, notes=(*dataset.notes, note)
    )
