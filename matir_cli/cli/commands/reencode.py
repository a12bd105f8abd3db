"""`matir reencode`: new vectors from the encoder of another model set."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from matir_cli.cli.boundary import say
from matir_cli.cli.exit_codes import DONE, SKIPPED
from matir_cli.cli.options.common import (
    device_option,
    gallery_option,
    say_note,
    verbose_option,
)
from matir_cli.cli.options.decoding import decode_timeout_option
from matir_cli.cli.options.progress import progress_option
from matir_cli.cli.progress import progress_bar, show_progress
from matir_cli.cli.text import count_of, readable_size
from matir_cli.engines.registry import has_own_processor, load_region_encoder
from matir_cli.errors import OtherProposer, WeightsMissing
from matir_cli.gallery.database import GalleryFile
from matir_cli.indexing.reencode import (
    Exchanged,
    NotReencoded,
    begin_reencoding,
    check_space,
    count_pending,
    reencode_photos,
)
from matir_cli.model_sets.catalogue import ModelSet
from matir_cli.model_sets.choice import choose_next_set, record_choice
from matir_cli.model_sets.session import locate_part
from matir_cli.output.printable import printable


@click.command(short_help="Make new vectors with the encoder of another model set.")
@gallery_option
@click.option(
    "--models",
    "model_set",
    required=True,
    metavar="SET",
    help="Model set of the new encoder: a name from `matir models list`, or a TOML file.",
)
@device_option
@decode_timeout_option
@progress_option
@verbose_option
@click.option(
    "--from-files",
    is_flag=True,
    help="Decode files that are unchanged rather than previews: slower, and exactly as `add` does.",
)
@click.option("--restart", is_flag=True, help="Forget new vectors that are half made, and begin anew.")
@click.option(
    "--drop-missing",
    is_flag=True,
    help="Drop photos that have no preview and whose file is missing or has changed.",
)
@click.pass_context
def reencode(
    context: click.Context,
    gallery_path: Path,
    model_set: str,
    device: str,
    from_files: bool,
    restart: bool,
    drop_missing: bool,
) -> None:
    """Encode the stored regions with the encoder of SET; masks, previews and verdicts stay.

    The pictures are the stored previews, or files that are unchanged. The proposer is not needed,
    and SET must have the one that the regions are of. Until the last photo is done, searches use
    the old vectors; then all are exchanged at once. An interrupted run goes on where it was, and
    photos that were added meanwhile are covered.

    If a picture cannot be had, the photo is named and nothing is exchanged. Run the command again
    when its volume is mounted, or use --drop-missing. To give up what is half made: --restart with
    the set in use. The space that is not needed afterwards is given back by `matir compact`.

    \b
    Exit code: 0 done, 2 an error, 3 not done: photos could not be encoded, 130 interrupted.

    \b
    Examples:
      matir reencode --models full
      matir reencode --models ./mine.toml --from-files
    """
    with GalleryFile.open(gallery_path) as gallery:
        chosen = say_note(choose_next_set(gallery, model_set))
        _check_proposer(gallery, chosen)
        config = locate_part(chosen, "encoder")
        begun = begin_reencoding(gallery, config.identity, chosen.handle, restart=restart)
        if begun is None:
            say(f"the vectors are of this encoder, {config.identity.name}, already")
            return
        encoder = load_region_encoder(config, device)
        needed = check_space(gallery, encoder.dimensions)
        say(f"this needs about {readable_size(needed)} of free disk space meanwhile")
        pending = count_pending(gallery)
        if begun.photos:
            say(f"{count_of(begun.photos, 'photo')} done before, {pending:,} to do")
        outcomes = reencode_photos(
            gallery,
            encoder,
            begun,
            from_files=from_files,
            drop_missing=drop_missing,
            together=has_own_processor(device),
            progress=show_progress,
        )
        lost, exchanged = 0, None
        try:
            with closing(outcomes), progress_bar(pending) as bar:
                for outcome in outcomes:
                    if isinstance(outcome, Exchanged):
                        exchanged = outcome
                        continue
                    if isinstance(outcome, NotReencoded):
                        lost += 1
                        bar.say(f"not encoded {printable(str(outcome.path))}: {printable(outcome.reason)}")
                    bar.advance()
        except KeyboardInterrupt:
            say("what was made is kept; run the same command again to go on")
            raise
        if exchanged is None:
            say(
                f"{count_of(lost, 'photo')} could not be encoded, so the vectors in use stay; mount the "
                "volume and run the same command again, or drop them with --drop-missing"
            )
            context.exit(SKIPPED)
        record_choice(gallery, chosen)
        dropped = f", {count_of(exchanged.dropped, 'photo')} dropped" if exchanged.dropped else ""
        say(f"{count_of(exchanged.photos, 'photo')} now have vectors of {config.identity.name}{dropped}")
        say("to give unused space back: matir compact")
    context.exit(DONE)


def _check_proposer(gallery: GalleryFile, chosen: ModelSet) -> None:
    """Check that the gallery's regions are of the set's proposer, by its name if its files are missing.

    Raises:
        OtherProposer: they are not.
    """
    bound, wanted = gallery.model("proposer"), chosen.part("proposer").name
    if bound is None:
        return
    stored = bound.name
    try:
        identity = locate_part(chosen, "proposer").identity
    except WeightsMissing:
        same = stored == wanted
    else:
        same = identity.weight_hash == bound.weight_hash
        if stored == wanted:  # same name, other weights or settings
            stored, wanted = (f"{each.name} ({each.weight_hash[:12]})" for each in (bound, identity))
    if not same:
        raise OtherProposer(gallery.path, stored, chosen.title, wanted)
