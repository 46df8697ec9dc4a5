"""`--validate`: the configuration was read and checked; does the source open? Runs no stage."""

from pipeline.errors import EXIT_DONE
from pipeline.settings import Settings
from pipeline.sources import SourceInfo, open_source


def validate(settings: Settings) -> int:
    """Print what each source is. Raises SourceError for the first that does not open."""
    for source_id, source_settings in settings.sources.items():
        with open_source(source_settings, source_id) as source:
            print(f"{source_id}: {describe(source.info)}")
    print("configuration and source are good; nothing was run")
    return EXIT_DONE


def describe(info: SourceInfo) -> str:
    """`file, 768x576, 10 frames/s, 120 frames, 12.0 s`."""
    facts = [info.kind, f"{info.width}x{info.height}"]
    if info.frames_per_second:
        facts.append(f"{info.frames_per_second:g} frames/s")
    if info.frame_count:
        facts.append(f"{info.frame_count} frames")
    if info.duration_seconds:
        facts.append(f"{info.duration_seconds:.1f} s")
    return ", ".join(facts + (["live"] if info.is_live else []))
