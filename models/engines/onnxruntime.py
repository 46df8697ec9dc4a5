"""ONNX Runtime on a CPU."""

import onnxruntime

from models.centernet import CenterNet
from models.engines.engine import Engine, Images, Job, Outputs
from models.engines.exported import exported
from models.pixels import BATCH_NAME, INPUT_NAME


class OnnxRuntime(Engine):
    """The exported graph in ONNX Runtime, a session for each batch. Its threads serve all lanes, each of which works
    itself, too."""

    name = "onnxruntime"

    def __init__(self, network: CenterNet, job: Job) -> None:
        super().__init__(network, job)
        path = str(exported(self.module, job))
        self._sessions = {batch: _session(path, job, batch) for batch in job.batches}

    def run(self, images_bhwc: Images, out: Outputs) -> None:
        session = self._sessions[self.check(images_bhwc)]
        binding = session.io_binding()
        binding.bind_cpu_input(INPUT_NAME, images_bhwc)
        for name, array in out.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        session.run_with_iobinding(binding)


def _session(path: str, job: Job, batch: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.lanes * (job.threads - 1) + 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other stages want the cores
    options.add_free_dimension_override_by_name(BATCH_NAME, batch)  # what it knows beforehand it can plan for
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
