"""What is refused as too large, before memory is asked for it."""

# 8192x8192, twice as many as 8K video has; a file of some kB can declare a hundred times that.
MAX_PIXELS = 1 << 26
