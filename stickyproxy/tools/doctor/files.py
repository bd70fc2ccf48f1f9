"""Read manifests from files, as `kustomize build` or `helm template` write them: YAML or JSON, several in one."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from stickyproxy.tools.doctor.objects import Node, parse_object
from stickyproxy.tools.doctor.reading import ReadError, Reading
from stickyproxy.tools.doctor.resources import CLUSTER_KINDS


def read_files(paths: Sequence[str], namespace: str = "default") -> Reading:
    """Read all documents; `-` is the standard input. namespace: of objects that do not say theirs. ReadError."""
    reading = Reading(f"the manifests in {', '.join('standard input' if p == '-' else p for p in paths)}", live=False)
    for path in paths:
        try:
            text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
            documents = list(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        except OSError as error:
            raise ReadError(f"--file: expected a readable file, found {path!r}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ReadError(f"--file: expected YAML in {path!r}: {' '.join(str(error).split())[:300]}") from None
        for document in documents:
            for content in _flat(document):
                if found := parse_object(content, namespace):
                    if found.kind in CLUSTER_KINDS:
                        found = parse_object(content, "") or found
                    reading.objects.append(found)
    if not reading.objects:
        raise ReadError(f"--file: expected Kubernetes objects, found none in {', '.join(paths)}")
    return reading


def _flat(document: object) -> Iterator[object]:
    """Give a document, or what a List holds."""
    node = Node(document)
    if node["kind"].text.endswith("List") and node["items"]:
        for item in node["items"].items():
            yield from _flat(item.value)
    else:
        yield document
