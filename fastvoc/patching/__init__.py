"""fastvoc's decoders in the place of other packages' own, inside models that are loaded already."""
