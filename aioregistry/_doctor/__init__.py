"""The diagnosis of a live registry: :mod:`.gather` reads, :mod:`.words` and :mod:`.checks` judge (pure)."""
