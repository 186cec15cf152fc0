"""The two kinds of files that hold rows, Zarr and HDF5. Only these files import zarr and h5py.

    rows --quantise.py--> stored bytes --extents.py--> which bytes of which file
        --zarr_store.py | hdf5_store.py--> files on disk

extents.py      which rows are which bytes of which file; no file is touched
quantise.py     numbers to stored numbers and back: float16, bfloat16, int8 with one scale a token
zarr_store.py   lays out the Zarr arrays of a video, or of a pack
hdf5_store.py   lays out the HDF5 file of a video
"""
