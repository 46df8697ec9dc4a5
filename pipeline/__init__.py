"""The running pipeline: decode, infer, postprocess, track and deliver as stages joined by bounded queues."""
