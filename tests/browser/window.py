"""What tests do with a window of the browser, and see in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BOUND_SECONDS = 20.0


class Window:
    """A window of the browser, by a driver of selenium."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def reset(self) -> None:
        """Close the page, and undo what was set."""
        self.driver.get("about:blank")
        self.devtools("Emulation.clearDeviceMetricsOverride")
        self.devtools("Emulation.setEmulatedMedia", features=[])
        self.driver.get_log("browser")

    def open(self, url: str) -> None:
        """Go to a page, and wait for what is at its top; the rest loads when it is in sight."""
        self.driver.get(url)
        self.wait("document.querySelector('.tile') && document.querySelector('.chart .at')")
        self.wait("page.view.state")

    @contextmanager
    def another_tab(self) -> Iterator[None]:
        """Be in a new tab for a while."""
        first = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        try:
            yield
        finally:
            self.driver.close()
            self.driver.switch_to.window(first)

    def run(self, script: str, *args: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *args)

    def get(self, expression: str) -> Any:
        """The value of an expression."""
        return self.run(f"return {expression}")

    def wait(self, expression: str, value: Any = None) -> Any:
        """Wait until an expression is true, or has the value, and return it."""
        deadline = time.monotonic() + BOUND_SECONDS
        while True:
            found = self.get(expression)
            if found == value if value is not None else found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{expression} is {found!r} after {BOUND_SECONDS:.0f} s")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """The text of an element, as it is in the document."""
        return self.get(f"document.querySelector({selector!r}).textContent.trim()")  # type: ignore[no-any-return]

    def wait_text(self, selector: str, part: str) -> None:
        """Wait until an element's text has a part."""
        self.wait(f"document.querySelector({selector!r})?.textContent.includes({part!r})")

    def find(self, selector: str) -> Any:
        """An element that can be clicked and typed into."""
        return self.driver.find_element("css selector", selector)

    def look_at(self, selector: str) -> None:
        """Scroll to an element."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)

    def click(self, selector: str) -> None:
        """Click an element, as a person does."""
        self.look_at(selector)
        self.find(selector).click()

    def devtools(self, command: str, **parameters: Any) -> Any:
        """What a command of the developer tools returns."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def size(self, width: int, height: int) -> None:
        """Give the page another size."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip

    def media(self, **features: str) -> None:
        """Set what a style sheet asks for: ``prefers_color_scheme="dark"``."""
        named = {name.replace("_", "-"): value for name, value in features.items()}
        asked = [{"name": name, "value": value} for name, value in named.items()]
        self.devtools("Emulation.setEmulatedMedia", features=asked)

    def complaints(self) -> list[str]:
        """Errors and warnings in the console since the last call."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def memory(self) -> dict[str, float]:
        """What the page holds after a collection of garbage: bytes of its heap, and nodes."""
        for _ in range(2):
            self.devtools("HeapProfiler.collectGarbage")
        self.devtools("Performance.enable")
        metrics = self.devtools("Performance.getMetrics")["metrics"]
        wanted = ("JSHeapUsedSize", "Nodes", "JSEventListeners")
        return {each["name"]: each["value"] for each in metrics if each["name"] in wanted}
