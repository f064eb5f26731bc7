"""What a person sees of a page: pixels in headless Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

CHROMIUM = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip
BLUE = (0x2A, 0x7A, 0xB9)
"""The colour of the data in every drawing; thresholds and what is added up are orange."""

BAND = 400


def needs_chromium() -> None:
    """Skip a test where there is no browser."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed; `.ci/run` installs it")


def drawn(report: str, folder: Path) -> dict[str, int]:
    """Identifier of each of a report's drawings -> pixels in the colour of data, each in a band of its own, so that
    one that does not show is one that is named; at their sizes for a wide window."""
    figures = re.findall(r'<figure id="([^"]+)".*?(<svg role="img".*?</svg>)', report, flags=re.DOTALL)
    style = re.search(r"<style>.*?</style>", report, flags=re.DOTALL)
    assert style
    page = folder / "plots.html"
    stacked = "".join(f'<div style="height:{BAND}px;overflow:hidden">{plot}</div>' for _, plot in figures)
    page.write_text(f"<!doctype html><meta charset=utf-8>{style.group()}<body style='margin:0;padding:0'>{stacked}")
    pixels = screenshot(page, len(figures) * BAND)
    bands = (pixels[number * BAND : (number + 1) * BAND] for number in range(len(figures)))
    return {name: blue(band) for (name, _), band in zip(figures, bands, strict=True)}


def blue(pixels: NDArray[np.uint8]) -> int:
    """How many pixels are of the colour of data, up to 12 of 255 of each channel."""
    near = ((pixels[..., k] >= level - 12) & (pixels[..., k] <= level + 12) for k, level in enumerate(BLUE))
    return int(np.logical_and.reduce(list(near)).sum())


def screenshot(page: Path, height: int) -> NDArray[np.uint8]:
    """(height, 1200, 3) pixels of a page."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = ["chromium", *CHROMIUM, f"--user-data-dir={folder}/profile", f"--window-size=1200,{height}"]
        subprocess.run([*command, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True)
        return np.asarray(Image.open(shot).convert("RGB"))
