"""Declares two operators that torchvision's Python part wants and its CPU-less build lacks.

Copied into the peer's environment by ``make peers`` and imported there at start-up; nothing ever calls the operators.
"""

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import torch

    #: Kept alive: the declarations end with the library object.
    LIBRARY = torch.library.Library("torchvision", "DEF")
    LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
