// The list: more of it as the reader scrolls, new files as they come, many at once, and deletion that can be undone.
// Rows are always the server's own HTML, read from the page it would give without any script.

import { announce, element, formToken, localize } from "./words.js";

const EVERY = 5000;
const MOST = 200; // files that the list grows by
const GRACE = 6000;
const MOST_PAGES = 40; // of new files in one look
const OVERLAP = 1000; // what is committed at once may become visible in another order than its times tell

export function begin(list) {
  const files = new Files(list);
  files.follow();
  files.watch();
  files.choose();
  return files;
}

class Files {
  constructor(list) {
    Object.assign(this, { list, live: list.hasAttribute("data-live"), pending: null, looking: false });
    this.known = new Map([...list.children].map((row) => [row.dataset.id, row]));
    this.offerDelete(list);
  }

  async page(address) {
    const answer = await fetch(address, { headers: { Accept: "text/html" }, redirect: "error" });
    if (!answer.ok) throw new Error(`the list was answered with ${answer.status}`);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  // Rows of a page that are not there yet, in its order.
  fresh(page) {
    const rows = [...page.querySelectorAll("#files > li")].filter((row) => !this.known.has(row.dataset.id));
    for (const row of rows) { document.adoptNode(row); this.known.set(row.dataset.id, row); localize(row); this.offerDelete(row); }
    return rows;
  }

  // Endless scrolling: the link to more files is followed when it comes near.
  follow() {
    const more = document.getElementById("more");
    if (!more) return;
    const observer = new IntersectionObserver(async ([entry]) => {
      if (!entry.isIntersecting) return;
      observer.unobserve(more);
      try {
        const address = new URL(more.href);
        address.searchParams.set("limit", MOST);
        const page = await this.page(address);
        this.list.append(...this.fresh(page));
        const next = page.getElementById("more");
        if (!next) { more.parentElement.remove(); return; }
        more.href = next.getAttribute("href");
        observer.observe(more);
      } catch { // the link can be followed by hand, too
        setTimeout(() => observer.observe(more), EVERY);
      }
    }, { rootMargin: "1200px" });
    observer.observe(more);
  }

  watch() {
    setInterval(() => { if (document.visibilityState === "visible") this.look(); }, EVERY);
    document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible") this.look(); });
  }

  // Puts what is new on top. In another order than newest first its place is not known, so that it waits for a reload.
  async look() {
    if (!this.live || this.looking) return;
    this.looking = true;
    try {
      const address = new URL(location.href);
      address.searchParams.delete("cursor");
      address.searchParams.set("limit", MOST);
      const newest = this.list.firstElementChild?.dataset.created;
      if (newest) address.searchParams.set("since", new Date(new Date(newest) - OVERLAP).toISOString());
      const rows = [];
      for (let next = address, pages = 0; next && pages < MOST_PAGES; pages += 1) {
        const page = await this.page(next);
        rows.push(...this.fresh(page));
        next = page.getElementById("more")?.getAttribute("href");
      }
      if (!rows.length) return;
      for (const row of rows) row.classList.add("fresh");
      this.list.prepend(...rows);
      document.getElementById("empty")?.remove();
      document.querySelector("[hidden] > #chosen")?.parentElement.removeAttribute("hidden");
      announce(rows.length === 1 ? `New: ${rows[0].querySelector(".name").textContent}` : `${rows.length} new files`);
    } catch { /* the server is away; the next look may find it */ } finally { this.looking = false; }
  }

  choose() {
    const form = document.getElementById("chosen");
    const remove = form.querySelector(".danger");
    document.addEventListener("change", (event) => { if (event.target.name === "id") this.count(); });
    form.addEventListener("submit", (event) => {
      if (event.submitter !== remove) return;
      event.preventDefault();
      this.remove(this.chosen());
    });
    this.count();
  }

  chosen() { return [...this.list.children].filter((row) => row.querySelector("input").checked && !row.hidden); }

  count() {
    const many = this.chosen().length;
    document.body.classList.toggle("picking", many > 0);
    document.getElementById("count").textContent = `${many} selected`;
  }

  // Where the principal may delete, each row has a button for it.
  offerDelete(root) {
    if (!document.querySelector("#chosen .danger")) return;
    for (const row of root.matches("li") ? [root] : root.children) {
      const name = row.querySelector(".name").textContent;
      const button = element("button", { type: "button", className: "danger" }, "Delete");
      button.setAttribute("aria-label", `Delete ${name}`);
      button.addEventListener("click", () => this.remove([row]));
      row.querySelector(".row-actions").append(button);
    }
  }

  // The files are hidden at once, and whole until the grace is over: then, or when the page is left, they are deleted.
  remove(rows) {
    if (!rows.length) return;
    this.settle();
    const last = rows.at(-1).nextElementSibling ?? rows[0].previousElementSibling;
    for (const row of rows) { row.hidden = true; row.querySelector("input").checked = false; }
    this.count();
    const text = rows.length === 1 ? `${rows[0].querySelector(".name").textContent} deleted` : `${rows.length} files deleted`;
    const undo = element("button", { type: "button" }, "Undo");
    const bar = element("div", { id: "undo" }, element("span", {}, text), undo);
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", text);
    document.getElementById("main").append(bar);
    undo.focus();
    undo.addEventListener("click", () => this.restore());
    announce(`${text}. Undo is possible for six seconds.`);
    this.pending = { rows, bar, last, timer: setTimeout(() => this.settle(), GRACE) };
    window.addEventListener("pagehide", this.leaving ??= () => this.settle(), { once: false });
  }

  restore() {
    const { rows, bar, timer } = this.pending;
    clearTimeout(timer);
    this.pending = null;
    for (const row of rows) row.hidden = false;
    bar.remove();
    rows[0].querySelector(".name").focus();
    announce("Not deleted");
  }

  async settle() {
    if (!this.pending) return;
    const { rows, bar, last, timer } = this.pending;
    clearTimeout(timer);
    this.pending = null;
    if (bar.contains(document.activeElement)) last?.querySelector(".name")?.focus();
    bar.remove();
    const failed = [];
    await Promise.all(rows.map(async (row) => {
      try {
        const answer = await fetch(`/files/${row.dataset.id}`, { method: "DELETE", headers: formToken(), keepalive: true });
        if (!answer.ok && answer.status !== 404) throw new Error(`answered with ${answer.status}`);
        row.remove(); // but stays known, or a look that was on its way would bring it back
      } catch { row.hidden = false; failed.push(row); }
    }));
    if (failed.length) announce(`${failed.length} could not be deleted`);
  }
}
