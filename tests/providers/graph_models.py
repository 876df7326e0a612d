"""A program of its own: reads objects by the models of Microsoft's SDK for Graph and says what these do not understand.

Wheels are its arguments; they are imported from as they are. stdin: a JSON list of [model, object], model as
``message.Message``. stdout: a JSON list of complaints: a member the model does not know, or one whose value it does not
give back as it was.
"""

import importlib
import json
import sys
from datetime import datetime
from types import ModuleType
from typing import Any
from zipfile import ZipFile

MODELS = "msgraph/generated/models/"


def _open(wheels: list[str]) -> None:
    """Makes the models importable without the SDK's client, whose import wants far more. They have no __init__."""
    sys.path += wheels
    [sdk] = [wheel for wheel in wheels if "msgraph_sdk" in wheel]
    folders = {name.rpartition("/")[0] for name in ZipFile(sdk).namelist() if name.startswith(MODELS)}
    for folder in ("msgraph", "msgraph/generated", *folders):
        package = ModuleType(folder.replace("/", "."))
        package.__path__ = [f"{sdk}/{folder}"]
        sys.modules[package.__name__] = package


def _complaints(model: str, value: dict[str, Any]) -> list[str]:
    module, _, name = model.rpartition(".")
    kind = getattr(importlib.import_module(f"{MODELS.replace('/', '.')}{module}"), name)
    reading = importlib.import_module("kiota_serialization_json.json_parse_node_factory").JsonParseNodeFactory()
    writing = importlib.import_module("kiota_serialization_json.json_serialization_writer").JsonSerializationWriter()
    found = reading.get_root_parse_node("application/json", json.dumps(value).encode()).get_object_value(kind)
    writing.write_object_value(None, found)
    again = json.loads(writing.get_serialized_content())
    return [f"{model}{fault}" for fault in [*_unknown(found, ""), *_changed(value, again, "")]]


def _unknown(found: Any, where: str) -> list[str]:
    """Members that ended up where the models keep what they do not know."""
    if isinstance(found, list):
        return [fault for one in found for fault in _unknown(one, f"{where}[]")]
    if not hasattr(found, "additional_data"):
        return []
    own = [f"{where}.{name}: not known" for name in found.additional_data if not name.startswith("@odata.")]
    return own + [fault for name, one in vars(found).items() for fault in _unknown(one, f"{where}.{name}")]


def _changed(given: Any, again: Any, where: str) -> list[str]:
    """Values that did not come back; a model drops one whose type it does not expect."""
    if isinstance(given, dict) and isinstance(again, dict):
        return [fault for name in given for fault in _changed(given[name], again.get(name), f"{where}.{name}")]
    if isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        return [fault for one, two in zip(given, again, strict=True) for fault in _changed(one, two, f"{where}[]")]
    return [] if given == again or _same_time(given, again) else [f"{where}: {type(given).__name__} not understood"]


def _same_time(given: Any, again: Any) -> bool:
    try:
        return datetime.fromisoformat(given) == datetime.fromisoformat(again)
    except (TypeError, ValueError):
        return False


if __name__ == "__main__":
    _open(sys.argv[1:])
    json.dump([fault for model, value in json.load(sys.stdin) for fault in _complaints(model, value)], sys.stdout)
