"""ONNX Runtime on a CPU."""

import onnxruntime

from models.engines.engine import Engine, Exported, Images, Job, Outputs


class OnnxRuntime(Engine):
    """The exported graph in ONNX Runtime, as fast for any batch as for one that it knows beforehand. Its threads serve
    all lanes, each of which works itself, too."""

    name = "onnxruntime"
    loads_exported = True

    def __init__(self, exported: Exported, job: Job) -> None:
        super().__init__(job, exported.shapes)
        self.exported = exported
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.lanes * (job.threads - 1) + 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other stages want the cores
        self._session = onnxruntime.InferenceSession(str(exported.path), options, providers=["CPUExecutionProvider"])
        self._input_name = self._session.get_inputs()[0].name

    def run(self, images_bhwc: Images, out: Outputs) -> None:
        self.check(images_bhwc)
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._input_name, images_bhwc)
        for name, array in out.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(binding)
