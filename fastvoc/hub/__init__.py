"""Published models: names, downloads, the cache."""
