"""Read manifests from files, as `kustomize build` or `helm template` write them: YAML or JSON, several in one."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from stickyproxy.tools.doctor.objects import Node, parse_object
from stickyproxy.tools.doctor.reading import ReadError, Reading
from stickyproxy.tools.doctor.resources import CLUSTER_KINDS


def read_files(paths: Sequence[str], namespace: str = "") -> Reading:
    """Read all documents; `-` is the standard input. ReadError.

    namespace: of objects that do not say theirs; without it, the only one that is named anywhere in these files.
    """
    shown = ", ".join("standard input" if path == "-" else path for path in paths)
    reading = Reading(f"the manifests in {shown}", live=False)
    contents = [content for path in paths for document in _documents(path) for content in _flat(document)]
    where = namespace or _only_namespace(contents)
    for content in contents:
        kind = Node(content)["kind"].text
        if found := parse_object(content, "" if kind in CLUSTER_KINDS else where):
            reading.objects.append(found)
    if not reading.objects:
        raise ReadError(f"--file: expected Kubernetes objects, found none in {shown}")
    return reading


def _documents(path: str) -> list[object]:
    shown = "standard input" if path == "-" else repr(path)
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
        return list(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except OSError as error:
        raise ReadError(f"--file: expected a readable file, found {path!r}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ReadError(f"--file: expected YAML in {shown}, found bytes that are no UTF-8: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        at = f", line {mark.line + 1}, column {mark.column + 1}" if (mark := error.problem_mark) else ""
        hint = "; this looks like a template: give what `helm template` writes" if "{{" in text else ""
        raise ReadError(f"--file: expected YAML in {shown}{at}: {error.problem}{hint}") from None
    except yaml.YAMLError as error:
        raise ReadError(f"--file: expected YAML in {shown}: {' '.join(str(error).split())[:300]}") from None


def _only_namespace(contents: Sequence[object]) -> str:
    """Give the namespace that objects and bindings name, where it is one; else `default`, as kubectl would."""
    named = {Node(content).at("metadata.namespace").text for content in contents}
    named |= {s["namespace"].text for content in contents for s in Node(content)["subjects"].items()}
    named -= {""}
    return named.pop() if len(named) == 1 else "default"


def _flat(document: object) -> Iterator[object]:
    """Give a document, or what a List holds."""
    node = Node(document)
    if node["kind"].text.endswith("List") and node["items"]:
        for item in node["items"].items():
            yield from _flat(item.value)
    else:
        yield document
