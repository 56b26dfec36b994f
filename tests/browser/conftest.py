"""A real browser for the page: the system's Chromium, without a window."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.made_up import Society
from tests.browser.server import Server
from tests.browser.window import Window

PROGRAMS = ("chromium", "chromedriver")


@pytest.fixture(scope="session")
def browser(_surroundings: None) -> Iterator[Any]:
    """Chromium, kept for all tests of this worker; they are skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    found = [shutil.which(name) for name in PROGRAMS]
    if None in found:
        pytest.skip(f"there is no {' and no '.join(PROGRAMS)}")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for argument in (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--disable-extensions", "--no-first-run"),
            *("--window-size=1280,900", f"--user-data-dir={folder}"),
        ):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=Service(found[1]))
        try:
            yield driver
        finally:
            driver.quit()


@pytest.fixture
def window(browser: Any) -> Iterator[Window]:
    """The browser's window, as it is at the start; nothing goes on in it after the test."""
    opened = Window(browser)
    opened.reset()
    yield opened
    opened.reset()


@pytest.fixture
def society() -> Society:
    """Made-up data, of a society that steps when the test says so."""
    return Society()


@pytest.fixture
def server(society: Society) -> Iterator[Server]:
    """The made-up data, served."""
    with Server(society) as running:
        yield running
