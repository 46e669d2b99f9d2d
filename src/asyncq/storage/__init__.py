"""Files that outlive a run; all of them HDF5, none of them can run code."""
