// A list that stands still while somebody is at it, so that no row moves away from under a mouse, a finger or the
// keyboard: what is new waits behind a button, what is gone keeps its place, and the page scrolls by what grows above.

import { element } from "./words.js";

const AFTER_TOUCH = 4000; // milliseconds in which a finger that was here may come again

export const isShown = (row) => !row.hidden && !row.classList.contains("held");

export class Still {
  // `left` is called when nobody is at the list any more, and it has caught up.
  constructor(list, left = () => {}) {
    const [place, above] = [list.closest("section"), document.querySelector(".upload")];
    Object.assign(this, { list, place, left, pointed: false, timer: null, above, height: above?.offsetHeight });
    this.button = element("button", { type: "button", hidden: true });
    this.button.addEventListener("click", () => this.catchUp()?.querySelector("a, button")?.focus());
    document.getElementById("line").append(this.button);
    place.addEventListener("pointerenter", () => { clearTimeout(this.timer); this.pointed = true; this.brace(); });
    place.addEventListener("pointerleave", ({ pointerType }) => {
      this.timer = setTimeout(() => { this.pointed = false; this.settle(); }, pointerType === "mouse" ? 0 : AFTER_TOUCH);
    });
    place.addEventListener("focusin", () => this.brace());
    place.addEventListener("focusout", () => setTimeout(() => this.settle())); // by then it is known where it went
    if (this.above) new ResizeObserver(() => this.brace()).observe(this.above);
  }

  get held() { return this.pointed || this.place.querySelector(":focus-visible") !== null; }

  // What stands above keeps its height, and where it has grown, such as by a paste, the page scrolls along.
  brace() {
    if (!this.above) return;
    const [before, height] = [this.height, this.above.offsetHeight];
    this.height = height;
    document.documentElement.style.overflowAnchor = this.held ? "none" : ""; // where browsers scroll by themselves, and sooner
    if (!this.held) return;
    this.above.style.minBlockSize = `${height}px`;
    if (height <= before) return;
    document.body.style.minBlockSize = `calc(100vh + ${scrollY + height - before}px)`; // a short page has to have room for it
    scrollBy(0, height - before);
  }

  settle() {
    if (this.held) return;
    this.brace();
    if (this.above) this.above.style.minBlockSize = document.body.style.minBlockSize = "";
    this.catchUp();
    this.left();
  }

  // For a row that was put into the list, or taken from it: at once, or when the list catches up.
  came(row) { if (this.held) { row.classList.add("held"); this.tell(); } }

  went(row) {
    if (row.inert) return;
    if (!isShown(row) || !this.held) { row.hidden = true; row.classList.remove("held"); return; }
    row.style.blockSize = `${row.offsetHeight}px`;
    row.inert = true;
    row.classList.add("gone");
    row.querySelector(".dim").textContent = "Deleted";
  }

  // The first of the rows that are shown now.
  catchUp() {
    for (const row of this.list.querySelectorAll(":scope > .gone")) { row.hidden = true; row.inert = false; row.classList.remove("gone"); }
    const late = [...this.list.querySelectorAll(":scope > .held")];
    for (const row of late) row.classList.remove("held");
    this.tell();
    return late[0];
  }

  tell() {
    const many = this.list.querySelectorAll(":scope > .held").length;
    this.button.textContent = many === 1 ? "1 new file" : `${many} new files`;
    this.button.hidden = !many;
  }
}
