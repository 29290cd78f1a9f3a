"""What runs, and where: the registry of implementations, native libraries, threads, the environment."""
