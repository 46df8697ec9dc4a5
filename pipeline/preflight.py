"""Is what was asked for there? Tells what can be told before anything slow is started: of the model, its weights and
classes, then of the sources. The stages look again and have the last word. Opens no source and knows no torch.
"""

import models
from pipeline.errors import UsageError
from pipeline.settings import Settings
from pipeline.sources import parse_address


def check(settings: Settings) -> None:
    """Raises UsageError, then SourceError, for the first thing that is wrong."""
    settings.infer.check_model(models.list_models())
    settings.postprocess.class_ids(_class_names(settings))
    for source in settings.sources.values():
        parse_address(source.uri)


def _class_names(settings: Settings) -> tuple[str, ...]:
    """Those that the network can have. Raises UsageError for weights that are none, or not for the model."""
    try:
        spec = models.describe_weights(settings.infer.model, settings.infer.weights)
    except models.CheckpointError as error:
        raise UsageError(f"infer.weights: {error}") from None
    if spec:
        return spec.class_names
    # Weights without names have the usual classes, or numbered ones: how many shows when they are loaded.
    numbered = (name for name in settings.postprocess.classes if name.startswith(models.NUMBERED_CLASS))
    return models.SPECS[settings.infer.model].class_names + tuple(numbered)
