"""The ONNX file of a network, made once for its weights and its size, for any number of images, and kept in the cache.
Knows no runtime."""

import hashlib
from pathlib import Path

import torch

from models import skeleton
from models.cache import cached_file
from models.engines.engine import EngineError, Exported, Job
from models.fingerprint import code_digest, versions
from models.pixels import PixelNetwork


def exported(module: PixelNetwork, job: Job) -> Exported:
    """Raises EngineError where the network cannot be exported."""

    def make(path: Path) -> None:
        if skeleton.fill(module, job.height, job.width, path):
            return
        from models.export import export_onnx  # and torchvision: seconds that are paid only when there is no file yet

        export_onnx(module, path, job.height, job.width, batch=None)

    try:
        path = cached_file(f"{module.network.spec.name}-{_digest(module, job)}.onnx", make)
    except OSError as error:
        raise EngineError(f"the cache cannot be written ({error}); set CENTERSTREAM_CACHE to another folder") from None
    except torch.onnx.OnnxExporterError as error:
        raise EngineError(
            f"{module.network.spec.name} cannot be exported to ONNX ({str(error).splitlines()[0]})"
        ) from None

    return Exported(path, module.output_shapes(job.height, job.width))


def _digest(module: PixelNetwork, job: Job) -> str:
    """Of all that decides what is in the file: the weights, the job, the code of the networks, the exporter."""
    digest = hashlib.blake2b(digest_size=12)
    facts = [module.network.spec.to_json(), job.height, job.width, job.top_k, code_digest()]
    digest.update(repr([*facts, versions("torch", "torchvision", "onnx", "onnxscript")]).encode())
    for key, value in module.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
