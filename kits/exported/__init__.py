"""Networks as ONNX files that onnxruntime computes on the CPU: how they are written, checked and read.

A file is a graph of ONNX's own operators and, in its metadata, the plain configuration that prediction needs. As a checkpoint, it
can name no code.
"""

from kits.exported.files import SUFFIX, is_exported, require_libraries
from kits.exported.network import ExportedNetwork, load_member, own_way, refuse_options
from kits.exported.writing import export_network

__all__ = [
    "SUFFIX",
    "ExportedNetwork",
    "export_network",
    "is_exported",
    "load_member",
    "own_way",
    "refuse_options",
    "require_libraries",
]
