"""Files that outlive a run, and those for other programs; none of them can run code."""
