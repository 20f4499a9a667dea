"""Without its framework an integration says which extra to install."""

from __future__ import annotations

import importlib
import sys

import pytest

from aioregistry._extras import needs


@pytest.mark.parametrize("name", ["aiohttp", "fastapi", "httpx", "httpx2", "starlette", "uvicorn"])
def test_a_missing_framework_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [*sys.modules]:
        ours = module.removeprefix("aioregistry.integrations.")
        if ours == name or ours.startswith(f"_{name}_") or module.partition(".")[0] == name:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError) as raised:
        importlib.import_module(f"aioregistry.integrations.{name}")
    assert str(raised.value) == needs(f"aioregistry.integrations.{name}", name, name)
