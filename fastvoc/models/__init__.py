"""The models: a configuration dataclass and a module each."""
