"""Side-by-side timings and exactness studies; run as modules from the repository root."""
