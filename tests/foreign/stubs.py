"""Makes Python stubs from the proto files, at run time and into a folder of the caller's.

Knows nothing of nodes or of what is done with the stubs.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from grpc_tools import protoc


@dataclass(frozen=True)
class Stubs:
    """The generated modules of the public interface. Their contents have no static types."""

    types: Any
    like: Any
    like_grpc: Any
    counter: Any
    counter_grpc: Any
    cluster: Any
    cluster_grpc: Any


def generate(proto: Path, into: Path) -> Stubs:
    """Compiles `likewise.v1` under `proto`, and imports the result."""
    files = sorted(str(path) for path in (proto / "likewise" / "v1").glob("*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    code = protoc.main([
        "protoc", f"--proto_path={proto}", f"--proto_path={well_known}",
        f"--python_out={into}", f"--grpc_python_out={into}", *files,
    ])
    if code != 0:
        raise RuntimeError(f"protoc ended with {code}")
    sys.path.insert(0, str(into))
    return Stubs(
        types=_module("types_pb2"),
        like=_module("like_service_pb2"),
        like_grpc=_module("like_service_pb2_grpc"),
        counter=_module("counter_service_pb2"),
        counter_grpc=_module("counter_service_pb2_grpc"),
        cluster=_module("cluster_service_pb2"),
        cluster_grpc=_module("cluster_service_pb2_grpc"),
    )


def _module(name: str) -> Any:
    return importlib.import_module(f"likewise.v1.{name}")
