"""Writes Envoy's own descriptors of the packages named as arguments, as a FileDescriptorSet, to stdout.

They come from the Python package xds-protos. Exit code 3 says that it is not installed.
"""

import importlib
import pathlib
import sys

try:
    import envoy
    from google.protobuf import descriptor_pb2
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)


def add(file, done, out):
    """Adds a file after the files it imports."""
    if file.name in done:
        return
    done.add(file.name)
    for dependency in file.dependencies:
        add(dependency, done, out)
    file.CopyToProto(out.file.add())


def main():
    out = descriptor_pb2.FileDescriptorSet()
    done = set()
    roots = [pathlib.Path(root).parent for root in envoy.__path__]
    for package in sys.argv[1:]:
        for root in roots:
            for path in sorted((root / package.replace(".", "/")).glob("*_pb2.py")):
                module = importlib.import_module(f"{package}.{path.stem}")
                add(module.DESCRIPTOR, done, out)
    sys.stdout.buffer.write(out.SerializeToString())


main()
