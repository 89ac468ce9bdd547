"""The page as a user has it: what is read on it, and what is pressed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

T = TypeVar("T")
PATIENCE = 30.0
"""Seconds; the page asks once a second, on a machine that may be busy."""


class Page:
    def __init__(self, driver: WebDriver) -> None:
        self.driver = driver

    def open(self, url: str, state: str = "live") -> None:
        self.driver.get("about:blank")
        self.errors()  # of the page before
        self.driver.get(url)
        self.until(lambda: self.state == state, f"state {state}")

    @property
    def state(self) -> str:
        return str(self.find("link").get_attribute("data-state"))

    def find(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return str(
            self.driver.execute_script(
                "return document.getElementById(arguments[0]).innerText", name
            )
        ).strip()

    def shown(self, name: str) -> bool:
        return self.find(name).is_displayed()

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def write(self, name: str, text: str) -> None:
        field = self.find(name)
        field.clear()
        field.send_keys(text)

    def choose(self, name: str, value: str) -> None:
        Select(self.find(name)).select_by_value(value)

    def errors(self) -> list[str]:
        """What the console has to complain of, since the last call."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
        ]  # type: ignore[no-untyped-call]

    def until(self, true: Callable[[], T], what: str) -> T:
        return WebDriverWait(self.driver, PATIENCE, 0.1).until(
            lambda _: true(), f"never seen: {what}"
        )
