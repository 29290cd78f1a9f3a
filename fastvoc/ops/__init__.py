"""The operations: each module defines one op's meaning, its torch reference and its implementations."""
