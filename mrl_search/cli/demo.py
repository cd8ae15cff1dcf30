"""`mrl-search demo`: the whole job on drawn animals."""


def demo() -> None:
    """Run the whole job on drawn animals."""
