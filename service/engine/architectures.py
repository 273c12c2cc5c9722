"""Which models vLLM serves adapters of, read from the installed vLLM's source.

vLLM would tell too, after an import of ten seconds and more; its engine tells by not starting. Nothing of it
is imported here.
"""

import ast
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from service.jsonshape import array, mapping

_PACKAGE = "vllm.model_executor.models"
_INTERFACE = "SupportsLoRA"
"""The class among whose heirs a model's class must be."""


def takes_adapters(base_path: Path) -> bool:
    """Whether an engine for the model at `base_path` can serve adapters of it. True where that cannot be
    told, as without vLLM or with a model that it does not know by name. Blocks on disk."""
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        return True
    models = Path(found.origin).parent / "model_executor" / "models"
    try:
        names = array(mapping(json.loads((base_path / "config.json").read_bytes())).get("architectures"))
        classes = dict(_registered(models / "registry.py"))
        known = [classes[str(name)] for name in names if str(name) in classes]
        return not known or any(_inherits(models, module, name) for module, name in known)
    except (OSError, ValueError, TypeError):
        return True


def _registered(registry: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Architectures, and the modules and classes that serve them."""
    for table in ast.walk(ast.parse(registry.read_text())):
        if isinstance(table, ast.Dict):
            for key, value in zip(table.keys, table.values, strict=True):
                match key, value:
                    case (
                        ast.Constant(value=str(name)),
                        ast.Tuple(elts=[ast.Constant(value=str(module)), ast.Constant(value=str(kind))]),
                    ):
                        yield name, (module, kind)


def _inherits(models: Path, module: str, name: str) -> bool:
    """Whether a class of a module of vLLM's models is an heir of the interface."""
    if name == _INTERFACE:
        return True
    tree = ast.parse((models / f"{module}.py").read_text())
    imported = dict(_imported(tree))
    return any(
        _inherits(models, *imported.get(base.id, (module, base.id)))
        for each in tree.body
        if isinstance(each, ast.ClassDef) and each.name == name
        for base in each.bases
        if isinstance(base, ast.Name)
    )


def _imported(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """Names in a module of vLLM's models, and the modules beside it and names there that they come from."""
    for each in ast.walk(tree):
        if isinstance(each, ast.ImportFrom) and each.module is not None:
            package, _, module = each.module.rpartition(".")
            if each.level == 1 or package == _PACKAGE:
                yield from ((alias.asname or alias.name, (module, alias.name)) for alias in each.names)
