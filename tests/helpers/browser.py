"""A headless Chromium for tests of pages: `with browser_page() as page:` gives a page of Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")


@contextmanager
def browser_page(width: int = 1280, height: int = 800) -> Iterator[Page]:
    """Yield an empty page of this size in pixels; fail at its end if its script raised. Skip without Chromium."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        browser.close()
    assert not errors, errors
