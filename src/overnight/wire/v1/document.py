"""What bodies and queries have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """A frozen JSON document that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)
