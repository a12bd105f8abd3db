"""Arguments of the tools. Their types are the JSON schemas that clients get, and are enforced."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from matir_cli.search.filters import WITHIN, Orientation
from matir_cli.search.query import MOST_EXAMPLES
from matir_cli.search.sorting import SortKey
from matir_cli.server.searches import MOST_CANDIDATES, MOST_RESULTS, ExampleBody, SearchBody, Stars

MOST_PER_PAGE = 50
"""Results of a page at most."""

MOST_ON_SHEET = 36
"""Photos of a contact sheet at most."""

MOST_OUTLINED = 100
"""Regions outlined in a picture at most."""

LARGEST_SIDE = 1024
"""Long side of a photo's picture at most, pixels."""

Identity: TypeAlias = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]

Words: TypeAlias = Annotated[str, Meta(max_length=2000)]

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]

Coordinate: TypeAlias = Annotated[float, Meta(ge=-1e9, le=1e9)]

SearchName: TypeAlias = Annotated[
    str, Meta(max_length=32, description="Name of a search, as its results give it.")
]

PageSize: TypeAlias = Annotated[
    int, Meta(ge=1, le=MOST_PER_PAGE, description="Results per page; the next page is asked for by cursor.")
]


class FactsArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `gallery_facts`: none."""


class SearchArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `search_photos`."""

    text: Annotated[Words | None, Meta(description="Description of the object, such as: dog led by rope")] = (
        None
    )
    without: Annotated[
        list[Words], Meta(max_length=20, description="Descriptions of what the photos must not show.")
    ] = []
    example_regions: Annotated[
        list[Identity],
        Meta(max_length=MOST_EXAMPLES, description="Ids of regions that show such objects, as examples."),
    ] = []
    unlike_regions: Annotated[
        list[Identity],
        Meta(max_length=MOST_EXAMPLES, description="Ids of regions that show what must not be found."),
    ] = []
    example_photo: Annotated[
        Identity | None,
        Meta(description="Id of a photo that shows such an object; a box or point in it selects one."),
    ] = None
    example_box: Annotated[
        Annotated[list[Coordinate], Meta(min_length=4, max_length=4)] | None,
        Meta(description="x0, y0, x1, y1 in pixels of example_photo."),
    ] = None
    example_point: Annotated[
        Annotated[list[Coordinate], Meta(min_length=2, max_length=2)] | None,
        Meta(description="x, y in pixels of example_photo."),
    ] = None
    weight: Annotated[Share, Meta(description="Share of the examples next to a text.")] = 0.5
    places: Annotated[
        list[Words],
        Meta(max_length=100, description="Only photos in these folders: absolute paths, any depth."),
    ] = []
    since: Annotated[
        Words | None, Meta(description="Only photos taken on this date or later: 2024, 2024-05, 2024-05-17")
    ] = None
    until: Annotated[Words | None, Meta(description="Only photos taken up to and including this date.")] = (
        None
    )
    camera: Annotated[Words | None, Meta(description="Part of the camera's name.")] = None
    min_size: Annotated[
        Share | None, Meta(description="Least fraction of the photo that the object covers.")
    ] = None
    max_size: Annotated[
        Share | None, Meta(description="Greatest fraction of the photo that the object covers.")
    ] = None
    near: Annotated[
        Annotated[list[float], Meta(min_length=2, max_length=2)] | None,
        Meta(description="Only photos near this place: latitude, longitude in degrees; see within."),
    ] = None
    within: Annotated[float, Meta(gt=0, le=1e9, description="Greatest distance from near, metres.")] = WITHIN
    has_gps: Annotated[bool | None, Meta(description="Only photos with a position, or without one.")] = None
    orientation: Annotated[
        Orientation | None, Meta(description="Only upright, wide or square photos, as they are displayed.")
    ] = None
    rating: Annotated[
        Annotated[list[Stars], Meta(min_length=2, max_length=2)] | None,
        Meta(description="Only photos with these ratings: least, greatest; -1 rejected, 0 unrated, to 5."),
    ] = None
    keywords: Annotated[
        list[Words], Meta(max_length=100, description="Keywords that the photos have; * is anything.")
    ] = []
    no_keywords: Annotated[
        list[Words], Meta(max_length=100, description="Keywords that the photos do not have.")
    ] = []
    unique: Annotated[
        bool, Meta(description="Leave out near-copies, and other photos of a burst, of better results.")
    ] = False
    sort: Annotated[SortKey, Meta(description="Order: best, oldest or largest object first, or by path.")] = (
        "score"
    )
    explain: Annotated[
        bool, Meta(description="Let each result say where its score and its mask come from.")
    ] = False
    judge: Annotated[
        bool,
        Meta(
            description="Let a vision-language model judge and point at the object. Better, and slow: up to "
            "seconds per photo; without it the answer takes less than a second."
        ),
    ] = True
    candidates: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_CANDIDATES)] | None,
        Meta(description="Number of photos that the judge looks at, at most; 100 if not given."),
    ] = None
    budget: Annotated[
        Annotated[float, Meta(ge=0, le=1e6)] | None,
        Meta(description="Seconds after which the judge is asked about no further photo."),
    ] = None
    min_p: Annotated[
        Share | None, Meta(description="Leave out photos to which the judge gives a lower probability.")
    ] = None
    min_score: Annotated[
        Coordinate | None, Meta(description="Leave out photos whose stage 1 score, -1 to 1, is lower.")
    ] = None
    limit: Annotated[int, Meta(ge=1, le=MOST_RESULTS, description="Number of results.")] = 20
    page_size: PageSize = 20

    def body(self) -> SearchBody:
        """Return the search in the form of the HTTP API; ValueError if arguments contradict each other."""
        if self.min_p is not None and (self.text is None or not self.judge):
            raise ValueError("min_p needs the judge: give a text, and judge=true")
        if self.text is None and not self.example_regions and self.example_photo is None:
            raise ValueError("give a text, example_regions or an example_photo")
        return SearchBody(
            text=self.text,
            without=self.without,
            examples=self._examples(),
            unlike=[ExampleBody(region) for region in self.unlike_regions],
            weight=self.weight,
            places=self.places,
            since=self.since,
            until=self.until,
            camera=self.camera,
            min_size=self.min_size,
            max_size=self.max_size,
            near=None if self.near is None else (self.near[0], self.near[1]),
            within=self.within,
            has_gps=self.has_gps,
            orientation=self.orientation,
            rating=None if self.rating is None else (self.rating[0], self.rating[1]),
            keywords=self.keywords,
            no_keywords=self.no_keywords,
            unique=self.unique,
            sort=self.sort,
            explain=self.explain,
            limit=self.limit,
            candidates=self.candidates,
            rerank=self.judge,
            ground=self.judge,
            min_score=self.min_score,
            min_p=self.min_p,
            budget=self.budget,
        )

    def _examples(self) -> list[ExampleBody]:
        shown = [ExampleBody(region) for region in self.example_regions]
        photo, box, point = self.example_photo, self.example_box, self.example_point
        if photo is not None or box is not None or point is not None:
            selected = ExampleBody(
                None,
                photo,
                None if box is None else (box[0], box[1], box[2], box[3]),
                None if point is None else (point[0], point[1]),
            )
            shown.append(selected)
        if len(shown) > MOST_EXAMPLES:
            raise ValueError(f"give {MOST_EXAMPLES} examples at most")
        return shown


class PageArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `next_results`."""

    cursor: Annotated[str, Meta(max_length=64, description="next_cursor of the page before.")]


class SimilarArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `similar_objects`."""

    region: Annotated[Identity, Meta(description="Id of the region that shows the object.")]
    limit: Annotated[int, Meta(ge=1, le=MOST_RESULTS, description="Number of results.")] = 20
    page_size: PageSize = 20


class PhotoArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `view_photo`."""

    photo: Annotated[Identity, Meta(description="Id of the photo.")]
    search: Annotated[SearchName | None, Meta(description="Outline the object that this search found.")] = (
        None
    )
    regions: Annotated[
        list[Identity], Meta(max_length=MOST_OUTLINED, description="Ids of regions to outline.")
    ] = []
    all_regions: Annotated[
        bool, Meta(description="Outline and list all regions, with their ids: examples to search by.")
    ] = False
    size: Annotated[
        int, Meta(ge=64, le=LARGEST_SIDE, description="Long side of the picture in pixels, at most.")
    ] = 768


class SheetArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `view_results`."""

    search: SearchName
    first: Annotated[int, Meta(ge=1, le=MOST_RESULTS, description="Number of the first result.")] = 1
    count: Annotated[int, Meta(ge=1, le=MOST_ON_SHEET, description="Number of photos.")] = 12


class SaveArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `save_objects`."""

    search: SearchName
    photos: Annotated[
        Annotated[list[Identity], Meta(min_length=1, max_length=MOST_RESULTS)] | None,
        Meta(description="Ids of the photos; all results if not given."),
    ] = None
    form: Annotated[
        Literal["masks", "cutouts"],
        Meta(description="masks: black and white, in the photo's size; cutouts: transparent around it."),
    ] = "masks"
