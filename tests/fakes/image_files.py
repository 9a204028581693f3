"""Image files in every format that Pillow writes."""

from pathlib import Path

import numpy as np
from PIL import Image


def saved_images(folder: Path) -> list[Path]:
    """Save an image of every mode in every format of Pillow that supports the mode, and return the paths."""
    photo = Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 30, 3), np.uint8))
    wide = Image.fromarray(np.arange(1_200, dtype=np.uint16).reshape(40, 30) * 50)
    modes = {"I;16": wide, "RGBa": photo.convert("RGBA").convert("RGBa")}
    modes |= {mode: photo.convert(mode) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F")}
    modes |= {"LA": photo.convert("LA"), "PA": photo.convert("P").convert("PA"), "LAB": photo.convert("RGB")}
    Image.init()
    paths = []
    for format_ in sorted(Image.SAVE):
        if format_ in ("PDF", "EPS", "PALM", "BUFR", "GRIB", "HDF5", "WMF"):  # Pillow cannot read them, or not alone
            continue
        for mode, image in modes.items():
            path = folder / f"{mode.replace(';', '')}.{format_.lower()}"
            try:
                image.save(path, format_)
            except Exception:  # Pillow raises many kinds of errors for an unsupported mode
                path.unlink(missing_ok=True)
            else:
                paths.append(path)
    return paths
