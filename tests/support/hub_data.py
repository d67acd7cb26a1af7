"""A data set as a hub's repository holds it: Parquet files by configuration and split, and a README that names them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Rows = Sequence[Mapping[str, Any]]


def data_set(configurations: Mapping[str, Mapping[str, Rows]]) -> dict[str, bytes]:
    """Files for ``HubServer.add("datasets/org/name", …)``: rows by configuration and split."""
    files, configs = {}, []
    for name, splits in configurations.items():
        listed = [{"split": split, "path": f"{name}/{split}-*"} for split in splits]
        configs.append({"config_name": name, "data_files": listed})
        for split, rows in splits.items():
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), buffer)
            files[f"{name}/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    card = yaml.safe_dump({"configs": configs}, sort_keys=False)
    return {"README.md": f"---\n{card}---\n".encode(), **files}
