"""The catalog: base models that an administrator offers, and what FineTunes of them get."""

from finetune_api.catalog.models import CATALOG, CatalogModel

__all__ = ["CATALOG", "CatalogModel"]
