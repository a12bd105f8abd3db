"""What the tools do: each takes its arguments, and returns a structured result and perhaps a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from anyio import CapacityLimiter, from_thread, to_thread
from PIL import Image

from matir_cli import masks
from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.rows import StoredPhoto, StoredRegion
from matir_cli.gallery.working_image import load_working_image
from matir_cli.mcp import arguments, records
from matir_cli.mcp.folder import WriteFolder
from matir_cli.mcp.options import McpOptions, ToolRefused
from matir_cli.mcp.pictures import Outlined, contact_sheet, found_object, jpeg, outlined_photo
from matir_cli.mcp.saving import save_objects
from matir_cli.mcp.searches import Report, Searches
from matir_cli.output import drawing
from matir_cli.search.pipeline import SearchOptions
from matir_cli.search.query import Query, resolve_region
from matir_cli.search.results import SearchResult
from matir_cli.server.client import is_running
from matir_cli.server.exports import selected
from matir_cli.server.facts import gallery_facts
from matir_cli.server.jobs import Search
from matir_cli.server.runtime import find_server

Value = TypeVar("Value")

MOST_THREADS = 4
"""Calls at a time that read the gallery or decode photos; further ones wait."""

MOST_MONTHS = 240
"""Months that are listed at most, the last ones."""

MOST_CAMERAS = 40
"""Cameras that are listed at most, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a call."""

    record: object
    """Structured result, a record of `matir_cli.mcp.records`."""
    picture: bytes | None = None
    """JPEG."""


class Tools:
    """The tools of one client. Their errors are MatirError, ToolRefused and ValueError."""

    def __init__(self, options: McpOptions) -> None:
        """Open the folder to write to, if there is one; OutputError if that fails."""
        self._options = options
        self.folder = None if options.write_to is None else WriteFolder(options.write_to)
        self.searches = Searches(options)
        self._threads = CapacityLimiter(MOST_THREADS)

    async def facts(self, _wanted: arguments.FactsArguments, _report: Report) -> Answer:
        """Return facts about the gallery."""
        server = await to_thread.run_sync(self._has_server, abandon_on_cancel=True)
        facts = await self._with_gallery(lambda gallery: gallery_facts(gallery, self._options.models))
        months = [records.CountedName(each.month, each.photos) for each in facts.months]
        cameras = [records.CountedName(each.camera, each.photos) for each in facts.cameras]
        return Answer(
            records.GallerySummary(
                gallery=records.path_text(facts.path),
                photos=facts.photos,
                regions=facts.regions,
                undated=facts.undated,
                months=months[-MOST_MONTHS:],
                cameras=cameras[:MOST_CAMERAS],
                models=facts.models,
                text_search=facts.searchable,
                judge=facts.judgeable,
                server=server,
                writes_to=None if self.folder is None else records.path_text(self.folder.path),
            )
        )

    async def search(self, wanted: arguments.SearchArguments, report: Report) -> Answer:
        """Search, and return the first page of results."""
        kept = await self.searches.run(wanted.body().search(), report)
        return Answer(kept.page(0, wanted.page_size))

    async def similar(self, wanted: arguments.SimilarArguments, report: Report) -> Answer:
        """Search for the objects most like a region, and return the first page of results."""
        search = Search(
            lambda gallery, _: Query(examples=(resolve_region(gallery, wanted.region),)),
            SearchOptions(limit=wanted.limit, rerank=False),
        )
        kept = await self.searches.run(search, report)
        return Answer(kept.page(0, wanted.page_size))

    async def next_page(self, wanted: arguments.PageArguments, _report: Report) -> Answer:
        """Return a further page of results."""
        return Answer(self.searches.next_page(wanted.cursor))

    async def photo(self, wanted: arguments.PhotoArguments, _report: Report) -> Answer:
        """Return a photo with the objects asked for outlined."""
        result = None
        if wanted.search is not None:
            found = selected(self.searches.get(wanted.search).results, [wanted.photo])
            if not found:
                raise ToolRefused(
                    f"photo {wanted.photo} is no result of search {wanted.search!r}; leave search out, or "
                    "take a photo of its results"
                )
            result = found[0]
        return await self._with_gallery(lambda gallery: _photo_answer(gallery, wanted, result))

    async def sheet(self, wanted: arguments.SheetArguments, _report: Report) -> Answer:
        """Return results as one picture."""
        kept = self.searches.get(wanted.search)
        shown = kept.results[wanted.first - 1 : wanted.first - 1 + wanted.count]
        if not shown:
            raise ToolRefused(f"the search has {len(kept.results)} results; choose a smaller first")

        def draw(gallery: GalleryFile) -> Answer:
            sheet, columns, available = contact_sheet(gallery, shown)
            entries = [
                records.SheetEntry(each.rank, each.photo.id, is_there)
                for each, is_there in zip(shown, available, strict=True)
            ]
            return Answer(records.ContactSheet(kept.name, len(kept.results), columns, entries), jpeg(sheet))

        return await self._with_gallery(draw)

    async def save(self, wanted: arguments.SaveArguments, _report: Report) -> Answer:
        """Write masks or cut-outs into the folder."""
        folder = self.folder
        if folder is None:
            raise ToolRefused("there is no folder to write to; start matir mcp with --write-to FOLDER")
        found = self.searches.get(wanted.search).results
        results = found if wanted.photos is None else selected(found, wanted.photos)
        if not results:
            raise ToolRefused("none of these photos is a result of the search; take ids of its results")
        saved = await self._with_gallery(
            lambda gallery: save_objects(gallery, folder, wanted.form, results, from_thread.check_cancelled),
            abandon=False,
        )
        return Answer(saved)

    def _has_server(self) -> bool:
        """Return True if a server of the gallery answers, and may be used."""
        record = find_server(self._options.gallery) if self._options.use_server else None
        return record is not None and is_running(record)

    async def _with_gallery(self, use: Callable[[GalleryFile], Value], *, abandon: bool = True) -> Value:
        """Call `use` with the gallery, in a thread; `abandon`: do not wait for it when cancelled."""

        def call() -> Value:
            with GalleryFile.open(self._options.gallery) as gallery:
                return use(gallery)

        return await to_thread.run_sync(call, abandon_on_cancel=abandon, limiter=self._threads)


def _photo_answer(
    gallery: GalleryFile, wanted: arguments.PhotoArguments, result: SearchResult | None
) -> Answer:
    """Draw and describe a photo."""
    with gallery.snapshot():  # another process may remove the photo between the statements
        photo = gallery.photo(wanted.photo)
        regions = gallery.regions(photo.id)
    objects = _regions_to_outline(regions, wanted)
    found = [] if result is None else found_object(result, f"{result.score:.3f}")
    image = load_working_image(gallery, photo.id)
    if image is None:
        raise PhotoUnreadable(photo.paths[0], "it is missing or changed, and no preview is stored")
    shown = [Outlined(str(each.ordinal), each.box, each.region.rle, _colour(each)) for each in objects]
    picture = outlined_photo(photo, Image.fromarray(image), [*shown, *found], wanted.size)
    outlined = [_described(photo, each) for each in objects]
    if result is not None and found:
        outlined.insert(0, _described_object(result, found[0].label))
    record = photo.record
    view = records.PhotoView(
        photo=photo.id,
        path=records.path_text(photo.paths[0]),
        width=record.width,
        height=record.height,
        taken_at=record.taken_at,
        camera=record.camera,
        latitude=record.latitude,
        longitude=record.longitude,
        regions=len(regions),
        outlined=outlined,
    )
    return Answer(view, jpeg(picture))


def _regions_to_outline(regions: list[StoredRegion], wanted: arguments.PhotoArguments) -> list[StoredRegion]:
    """Return the regions that a client wants outlined; the whole photo is none of "all"."""
    chosen = set(wanted.regions)
    if unknown := sorted(chosen - {each.id for each in regions}):
        raise ToolRefused(f"photo {wanted.photo} has no region {unknown[0]}; list them with all_regions=true")
    all_of_them = [each for each in regions if each.ordinal > 0][: arguments.MOST_OUTLINED]
    others = all_of_them if wanted.all_regions else []
    return [each for each in regions if each.id in chosen or each in others]


def _colour(region: StoredRegion) -> drawing.Colour:
    return drawing.colour(region.ordinal)


def _described(photo: StoredPhoto, region: StoredRegion) -> records.OutlinedObject:
    share = round(photo.record.share(region.region.area), 6)
    return records.OutlinedObject(str(region.ordinal), region.id, [*region.box.rounded(2)], share)


def _described_object(result: SearchResult, label: str) -> records.OutlinedObject:
    first = result.objects[0]
    area = None if first.mask is None else masks.area(first.mask)
    return records.OutlinedObject(
        label,
        None if first.region is None else first.region.id,
        [*first.box.rounded(2)],
        None if area is None else round(result.photo.record.share(area), 6),
    )
