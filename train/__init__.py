"""Training: from a folder of images with COCO annotations to a checkpoint that the pipeline runs. Knows no pipeline.

python -m train.check DATA        is the data what it should be?
python -m train RECIPE            train, watch, evaluate, report
python -m train.evaluate …        COCO average precision of any checkpoint
"""

import configs  # noqa: F401  how a process of ours starts
