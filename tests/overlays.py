"""The overlays of deploy/ as kustomize builds them, each once in a process."""

import copy
from functools import cache

import kubectl
from deployed import DEPLOY, Document, documents, files

__all__ = ["OVERLAYS", "built", "one"]

OVERLAYS = [
    name.removesuffix("/kustomization.yaml")
    for name in files()
    if name.endswith("kustomization.yaml") and "Component" not in (DEPLOY / name).read_text("utf-8")
]


@cache
def _built(name: str) -> tuple[Document, ...]:
    return tuple(documents(kubectl.build(DEPLOY / name)))


def built(name: str) -> list[Document]:
    """The objects of an overlay, for the caller to change."""
    return copy.deepcopy([*_built(name)])


def one(name: str, kind: str) -> Document:
    (document,) = (it for it in built(name) if it["kind"] == kind)
    return document
