"""Which image files are read: the formats that are trusted, and the endings that Pillow knows for them."""

from PIL import Image

TRUSTED = (
    *("PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "GIF", "TIFF"),
    *("BMP", "DIB", "PPM", "TGA", "QOI", "ICO", "DDS"),
)
"""Formats in which single pictures are kept today, decoded by Pillow itself.

Left out of what it opens are those that start another program or need a plugin of others (EPS, WMF, BUFR, GRIB, HDF5,
MPEG), measurements without a fixed white (FITS, SPIDER, MCIDAS), and formats of a single program or of old machines
(PSD, ICNS, PCX, SGI, XBM, …), whose decoders are the least tested ones and would be open to any file, whatever its
ending.
"""

# Pillow loads its formats at the latest when they are first needed, which is not safe in several threads.
Image.init()

FORMATS = tuple(name for name in TRUSTED if name in Image.OPEN)
"""Those that this Pillow has, by its names."""

READ = (*FORMATS, "NPY")
"""Those that are read, with the arrays of NumPy."""

OF_PILLOW = (e for e, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO"))
ENDINGS = tuple(sorted([*OF_PILLOW, ".npy"]))
"""Their endings, in lower case. MPO is what Pillow calls a JPEG of several pictures, as some phones write them; it is
opened as JPEG."""
