"""The two kinds of files that hold rows: Zarr and HDF5. Only these files know the libraries."""
