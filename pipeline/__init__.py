"""The running pipeline: decode, infer, postprocess, track and deliver as stages joined by bounded queues."""

import configs  # noqa: F401  how a process of ours starts

VERSION = "0.1.0"
