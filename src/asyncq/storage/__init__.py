"""Files that outlive a run, and programs; none of them can run code."""
