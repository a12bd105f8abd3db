"""`matir show`: show what is stored about a photo."""

from __future__ import annotations

from pathlib import Path

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.options.common import PathName, gallery_option
from matir_cli.cli.options.decoding import decode_timeout_option
from matir_cli.cli.text import describe_notes, describe_position, describe_rating, readable_size
from matir_cli.errors import PhotoUnreadable
from matir_cli.gallery.database import GalleryFile
from matir_cli.gallery.files import find_photo
from matir_cli.gallery.working_image import load_working_image
from matir_cli.maintenance.show import HERE, PhotoDetails, RegionDetails, photo_details
from matir_cli.model_sets.presets import title_of
from matir_cli.output.json_encoding import to_json
from matir_cli.output.printable import printable


@click.command(short_help="Show what is stored about a photo.")
@click.argument("name", metavar="PATH|ID")
@gallery_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--overlay",
    type=PathName(),
    metavar="FILE",
    help="Draw the photo with all its regions, tinted and numbered; FILE ends in .png, .jpg or .webp.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@decode_timeout_option
def show(name: str, gallery_path: Path, as_json: bool, overlay: Path | None, force: bool) -> None:
    """Show a photo's files, EXIF fields and regions: box, share of the photo, predicted IoU, stability.

    Boxes are x0,y0,x1,y1 in pixels of the photo; region 0 is the whole photo. A number is a
    photo's id, as shown by `matir ls --long`; write ./12 for a file whose name is a number.

    \b
    Exit code: 0 done, 2 an error, such as a photo that is not in the gallery.

    \b
    Examples:
      matir show ~/Photos/dog.jpg
      matir show 4711 --overlay regions.png
      matir show 4711 --json | jq '[.regions[] | select(.area_share > 0.1)]'
    """
    if not name:
        raise click.UsageError("The name is empty: give a file or an id.")
    with GalleryFile.open(gallery_path) as gallery:
        photo_id = find_photo(gallery, name)
        if overlay is not None:
            _draw(gallery, photo_id, overlay, force)
        details = photo_details(gallery, photo_id)
    if as_json:
        click.echo(to_json(details))
    else:
        for line in _lines(details):
            click.echo(printable(line))


def _draw(gallery: GalleryFile, photo_id: int, target: Path, force: bool) -> None:
    image = load_working_image(gallery, photo_id)
    if image is None:
        raise PhotoUnreadable(
            gallery.paths(photo_id)[0], "no preview is stored, and the file is missing or has changed"
        )
    # Imported here: without --overlay nothing is drawn.
    from matir_cli.output.drawing import regions_overlay, save_picture

    save_picture(regions_overlay(image, gallery.regions(photo_id)), target, force=force)
    say(f"regions drawn in {target}")


def _lines(photo: PhotoDetails) -> list[str]:
    """Format the fields, then the regions in columns."""
    preview = "none" if photo.preview_bytes is None else readable_size(photo.preview_bytes)
    fields = {
        "id": str(photo.id),
        "size": f"{photo.width} x {photo.height}, masks at {photo.mask_width} x {photo.mask_height}",
        "taken": photo.taken_at or "-",
        "camera": photo.camera or "-",
        "position": describe_position(photo.latitude, photo.longitude),
        "rating": describe_rating(photo.rating),
        "keywords": ", ".join(photo.keywords) or "-",
        "orientation": str(photo.orientation),
        "sha256": photo.sha256,
        "added": photo.added_at,
        "preview": preview,
        "models": title_of(photo.model_set or "-"),
    }
    if photo.notes:
        fields["incomplete"] = describe_notes(photo.notes)
    names = [f"{file.path}{'' if file.state == HERE else f'  ({file.state})'}" for file in photo.files]
    lines = [*names, *(f"  {name:<12} {value}" for name, value in fields.items())]
    lines.append(f"{'region':>6}  {'share':>6}  {'pred. IoU':>9}  {'stability':>9}  box x0,y0,x1,y1")
    for region in photo.regions:
        box = ",".join(str(round(edge)) for edge in region.box)
        lines.append(
            f"{region.ordinal:>6}  {region.area_share:>6.1%}  {region.predicted_iou:>9.3f}  "
            f"{region.stability:>9.3f}  {box}{_origin(region)}"
        )
    return lines


def _origin(region: RegionDetails) -> str:
    """Format where a region comes from, if not from the proposer."""
    if region.origin is None:
        return ""
    return f"  ({region.origin}{'' if region.label is None else f': {region.label}'})"
