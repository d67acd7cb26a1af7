"""configs/answer_settings.yaml: serving arguments that can change what is answered, each with its reason."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pydantic import Field

from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict, load_yaml


class AnswerSetting(Strict):
    """One serving argument that can change what is answered."""

    changes: Literal["model", "answers"] = Field(
        description="model: another model is served, which is a claim of its own; answers: the same model is asked in "
        "another way, which is another question of the same claim."
    )
    reason: str


class AnswerSettingFile(Strict):
    """configs/answer_settings.yaml."""

    settings: dict[str, AnswerSetting] = Field(
        description="By argument, without the leading dashes and with dashes inside."
    )


@lru_cache(maxsize=1)
def answer_settings() -> dict[str, AnswerSetting]:
    """Read the settings.

    Raises:
        ConfigError: the file is wrong.
    """
    return load_yaml(ROOT / "configs" / "answer_settings.yaml", AnswerSettingFile).settings
