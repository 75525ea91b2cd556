"""Somebody who has a keyboard alone: goes from stop to stop, and sees where they are; must touch no mouse."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

MAX_STOPS, MAX_PARTS = 150, 8
# What has the keyboard, and what is wrong with it there: it has no mark, or lies where nobody sees it.
STOP = """() => {
  const one = document.activeElement;
  if (!one || one === document.body || one === document.documentElement) return null;
  const look = getComputedStyle(one), box = one.getBoundingClientRect(), faults = [];
  if (!one.matches(":focus-visible")) faults.push("is not marked as chosen by keyboard");
  else if ((look.outlineStyle === "none" || parseFloat(look.outlineWidth) === 0) && look.boxShadow === "none")
    faults.push("has no mark");
  const left = Math.max(box.left, 0), right = Math.min(box.right, innerWidth);
  const top = Math.max(box.top, 0), bottom = Math.min(box.bottom, innerHeight);
  if (right - left < 1 || bottom - top < 1) faults.push("is out of sight");
  else {
    const seen = [0.1, 0.5, 0.9].some((across) => [0.1, 0.5, 0.9].some((down) => {
      const there = document.elementFromPoint(left + across * (right - left), top + down * (bottom - top));
      return there && (one.contains(there) || there.contains(one) || [...(one.labels || [])].includes(there));
    }));
    if (!seen) faults.push("is covered");
  }
  window.keyrackStops = window.keyrackStops || new Map();
  if (!window.keyrackStops.has(one)) window.keyrackStops.set(one, window.keyrackStops.size);
  const words = one.getAttribute("aria-label") || one.textContent.trim().slice(0, 40) || one.id || one.name;
  // A day and a time are written part by part, each a stop of its own within the field.
  const parts = ["date", "datetime-local", "time"].includes(one.type);
  return {number: window.keyrackStops.get(one), words: `${one.localName} ${words}`, parts, faults};
}"""


class Keyboard:
    """The keyboard of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def next(self, *, back: bool = False) -> int | None:
        """Go to the next stop; answers its number on this page, None where the page begins anew."""
        before = stop = self.page.evaluate(STOP)
        for _ in range(MAX_PARTS):
            self.page.keyboard.press("Shift+Tab" if back else "Tab")
            stop = self.page.evaluate(STOP)
            if stop is None:
                return None
            if before is None or not stop["parts"] or stop["number"] != before["number"]:
                break
        assert not stop["faults"], f"{self.page.url}: {stop['words']} {', '.join(stop['faults'])}"
        return int(stop["number"])

    def reach(self, place: Locator) -> None:
        """Go on until a place has the keyboard."""
        expect(place).to_be_visible()
        last: int | None = -1
        for _ in range(MAX_STOPS):
            if place.evaluate("(element) => element === document.activeElement"):
                return
            at = self.next()
            assert at is None or at != last, f"{self.page.url}: the keyboard does not get on"
            last = at
        raise AssertionError(f"{self.page.url}: the keyboard does not come to {place}")

    def press(self, place: Locator, key: str = "Enter") -> None:
        """Go to a button, a link or what unfolds, and press it."""
        self.reach(place)
        self.page.keyboard.press(key)

    def write(self, place: Locator, words: str) -> None:
        """Go to a field and write into it, instead of what stands there."""
        self.reach(place)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(words)
        expect(place).to_have_value(words)

    def choose(self, place: Locator, words: str) -> None:
        """Go to a choice and take what begins with these words."""
        self.reach(place)
        self.page.keyboard.type(words)
        chosen = place.evaluate("(element) => element.selectedOptions[0].text")
        assert chosen.startswith(words), f"{chosen} instead of {words}"

    def go(self, letter: str) -> None:
        """Go to a page of the rail by its two keys."""
        self.page.keyboard.press("g")
        self.page.keyboard.press(letter)
