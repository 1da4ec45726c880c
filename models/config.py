"""What a published model's config.json says: one dataclass per family, which keeps what it does not know."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from ..autograd_core.text_files import read_json

Path = str | os.PathLike[str]
PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit. One line: what was expected, what came, how to mend it."""


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
    sizes: ClassVar[tuple[str, ...]] = ()  # fields that must be whole numbers above 0
    other_names: ClassVar[Mapping[str, str]] = {}  # what other families call a field → what it is called here

    id2label: dict[int, str] = dataclasses.field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    problem_type: str | None = None
    architectures: list[str] = dataclasses.field(default_factory=list)
    tie_word_embeddings: bool = True
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.sizes:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise CheckpointError(f"{type(self).__name__}: {name} must be a whole number above 0, got {value!r}")
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
        labels = given.pop("num_labels", None)
        if given.get("id2label") is not None:
            given["id2label"] = {int(number): name for number, name in given["id2label"].items()}
        elif labels is not None:
            given["id2label"] = {number: f"LABEL_{number}" for number in range(labels)}
        if labels is not None and labels != len(given["id2label"]):
            raise CheckpointError(f"num_labels={labels}, but id2label names {len(given['id2label'])} classes")
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
        if "num_labels" in changes and "id2label" not in changes:
            values.pop("id2label")
        return type(self).from_dict(values | changes)


_NEVER_NONE = ("id2label", "architectures")  # null in a file means: as if it were not there


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
