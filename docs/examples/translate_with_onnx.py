"""Translate a folder of images without torch: python translate_with_onnx.py translation.onnx FOLDER OUTPUT [LABEL].

pip install onnxruntime pillow
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

ENDINGS, BATCH = {".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}, 32

model, source, output, *label = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
told = session.get_modelmeta().custom_metadata_map
channels, height, width = json.loads(told["shape"])
needed = {one.name for one in session.get_inputs()}
files = sorted(file for file in Path(source).rglob("*") if file.suffix.lower() in ENDINGS)

for start in range(0, len(files), BATCH):
    batch, images = files[start : start + BATCH], []
    for file in batch:
        image = ImageOps.exif_transpose(Image.open(file)).convert("L" if channels == 1 else "RGB")
        image = ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS)
        images.append(np.asarray(image).reshape(height, width, channels))
    given = {"image": np.stack(images)}
    if "noise" in needed:  # each image has its own, whatever lies beside it
        streams = [np.random.default_rng(list(image.tobytes())) for image in images]
        noise = [stream.standard_normal((channels, height, width), dtype=np.float32) for stream in streams]
        given["noise"] = np.stack(noise)
    if "label" in needed:  # by default inferred from the image where the pipeline does that, or else no class
        given["label"] = np.full(len(batch), int(label[0] if label else told["default_label"]))
    for file, result in zip(batch, session.run(["result"], given)[0], strict=True):
        path = Path(output, file.relative_to(source)).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(result.squeeze(-1) if channels == 1 else result).save(path)
