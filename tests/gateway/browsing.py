"""Chromium, as it is installed on this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: install Debian's package chromium, or set CHROMIUM to its path"
)
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 760}


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        # As root, such as in a container, it has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, *, phone: bool = False, dark: bool = False) -> Iterator[Page]:
    """A page in a session of its own; whatever it complains of in its console fails the test at the end."""
    context = browser.new_context(
        viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
        has_touch=phone,
        is_mobile=phone,
        color_scheme="dark" if dark else "light",
    )
    complaints: list[str] = []
    page = context.new_page()
    page.set_default_timeout(20_000)
    # That an answer was an error is said by the page, and by the browser in its console.
    page.on(
        "console",
        lambda line: (
            complaints.append(line.text)
            if line.type in ("error", "warning") and "Failed to load resource" not in line.text
            else None
        ),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"a dialog was opened: {dialog.message}"))
    try:
        page.goto(url)
        yield page
        assert complaints == []
    finally:
        context.close()
