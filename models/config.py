"""What a published model's config.json says: one dataclass per family, which keeps what it does not know."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from ..autograd_core.errors import CheckpointError
from ..autograd_core.text_files import read_json

Path = str | os.PathLike[str]
PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**31


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


# How a field is annotated, as text → what config.json must hold for it: in words, and as a test. All plain numbers of a
# config are sizes, and all its fractions are probabilities or small terms.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number above 0", lambda v: _is_whole(v) and v > 0),
    "int | None": ("a whole number or null", lambda v: v is None or _is_whole(v)),
    "int | list[int] | None": (
        "a whole number, several or null",
        lambda v: v is None or type(v) is list or _is_whole(v),
    ),
    "float": ("a number in 0…1", _is_share),
    "float | None": ("a number in 0…1 or null", lambda v: v is None or _is_share(v)),
    "bool": ("true or false", lambda v: type(v) is bool),
    "str": ("text", lambda v: type(v) is str),
    "str | None": ("text or null", lambda v: v is None or type(v) is str),
    "list[str]": ("a list of names", lambda v: type(v) is list and all(type(item) is str for item in v)),
    "dict[int, str]": ("names by number", lambda v: type(v) is dict and len(v) > 0),
    "dict[str, Any]": ("a dict", lambda v: type(v) is dict),
}


@dataclasses.dataclass(kw_only=True)
class Config:
    """The keys of a config.json that all families share. Keys that no field knows stay in `extra`.

    Attributes:
        id2label: number → name of a class; `num_labels` is its length.
        problem_type: what a classification head is trained for, one of PROBLEMS; None decides by the labels.
        architectures: the classes that the checkpoint was saved from; the first one is what it holds.
        extra: every other key of the file; written back as it was.
    """

    model_type: ClassVar[str]
    other_names: ClassVar[Mapping[str, str]] = {}  # what other families call a field → what it is called here

    id2label: dict[int, str] = dataclasses.field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    problem_type: str | None = None
    architectures: list[str] = dataclasses.field(default_factory=list)
    tie_word_embeddings: bool = True
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            expected, fits = _KINDS.get(str(field.type), ("anything", lambda v: True))
            if not fits(value):
                raise CheckpointError(f"{field.name} must be {expected}, got {value!r:.80}")
        if self.problem_type not in (None, *PROBLEMS):
            raise CheckpointError(f"problem_type must be one of {', '.join(PROBLEMS)}, got {self.problem_type!r}")

    @property
    def num_labels(self) -> int:
        """How many numbers a classification head gives."""
        return len(self.id2label)

    def __getattr__(self, name: str) -> Any:
        # Python comes here only for what is no field.
        if name in type(self).other_names:
            return getattr(self, type(self).other_names[name])
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A config from the keys of a config.json; `num_labels` makes names of the classes where there are none.

        >>> from retrograd.models import BertConfig
        >>> config = BertConfig.from_dict({"hidden_size": 24, "num_labels": 3, "mood": "good"})
        >>> config.hidden_size, config.num_labels, config.extra
        (24, 3, {'mood': 'good'})
        """
        given: dict[str, Any] = {
            cls.other_names.get(name, name): value for name, value in values.items() if name != "model_type"
        }
        given["id2label"] = _classes(given.get("id2label"), given.pop("num_labels", None))
        given.pop("label2id", None)  # the same the other way round
        known = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        fields: dict[str, Any] = {n: v for n, v in given.items() if n in known and not (v is None and n in _NEVER_NONE)}
        return cls(**fields, extra={n: v for n, v in given.items() if n not in known})

    def to_dict(self) -> dict[str, Any]:
        """The keys of a config.json, unknown ones too."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        labels = {str(number): name for number, name in self.id2label.items()}
        fields |= {"id2label": labels, "label2id": {name: number for number, name in self.id2label.items()}}
        return {"model_type": self.model_type} | self.extra | fields

    def replaced(self, **changes: Any) -> Self:
        """A copy with some keys changed, by the names that config.json has for them; `num_labels` may be among them."""
        values = self.to_dict()
        if changes.get("num_labels", self.num_labels) != self.num_labels and "id2label" not in changes:
            values.pop("id2label")
        return type(self).from_dict(values | changes)


_NEVER_NONE = ("id2label", "architectures")  # null in a file means: as if it were not there


def _classes(names: Any, count: Any) -> dict[int, str] | None:
    """id2label from what stands under that name in JSON, where keys are text, and under num_labels; or None."""
    if count is not None and (type(count) is not int or count < 1):
        raise CheckpointError(f"num_labels must be a whole number above 0, got {count!r}")
    if names is None:
        return None if count is None else {number: f"LABEL_{number}" for number in range(count)}
    if not isinstance(names, Mapping) or {str(n) for n in names} != {str(n) for n in range(len(names))} or not names:
        raise CheckpointError(f"id2label must name the classes 0, 1, 2, … each, got {names!r:.80}")
    if count not in (None, len(names)):
        raise CheckpointError(f"num_labels={count}, but id2label names {len(names)} classes")
    return {int(number): str(name) for number, name in names.items()}


def read_config(folder: Path) -> dict[str, Any]:
    """The keys of the config.json in a folder. Raises OSError or CheckpointError, one line each."""
    shown = os.fspath(folder)
    if not os.path.isdir(folder):
        what = "is a file" if os.path.exists(folder) else "does not exist"
        raise FileNotFoundError(
            f"{shown!r} {what}: expected a folder with config.json and model.safetensors. Models are not downloaded by "
            "name; fetch the folder first."
        )
    path = os.path.join(shown, "config.json")
    if not os.path.exists(path):
        raise FileNotFoundError(f"{shown!r} holds no config.json, which says what kind of model its weights belong to")
    try:
        return read_json(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
