"""docs/models.md is what configs/models and memory_fit say."""

from __future__ import annotations

import re

from docs.pages.models import PAGE, listed_models, models_page
from tests.support.paper import paper_connection


def test_the_page_is_generated() -> None:
    with paper_connection() as paper:
        assert PAGE.read_text(encoding="utf-8") == models_page(paper, listed_models()), (
            "run `python -m docs.pages.models`"
        )


def test_every_checkpoint_has_a_row_and_the_least_gpus_it_fits_on() -> None:
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if found := re.fullmatch(r"`(.+/.+)`", cells[4] if len(cells) == 11 else ""):
            rows[found[1]] = cells[5:]
    assert set(rows) == {one.source for model in listed_models() for one in model.checkpoints}
    # 141 GB in BF16: four L40S of 48 GB, two of the next, one from 192 GB on; in FP8 one H100 holds it.
    assert rows["meta-llama/Llama-3.1-70B-Instruct"] == ["yes", "4", "2", "2", "1", "1"]
    assert rows["nvidia/Llama-3.1-70B-Instruct-FP8"] == ["", "2", "1", "1", "1", "1"]
    # Hopper computes NVFP4 in 16 bits.
    assert rows["nvidia/Llama-3.3-70B-Instruct-NVFP4"] == ["", "2 w", "1 w", "1 w", "1", "1"]
    assert rows["deepseek-ai/DeepSeek-R1"][1:3] == ["–", "–"]
    assert "huggingface" not in PAGE.read_text(encoding="utf-8")
