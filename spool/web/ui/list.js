// The list: more of it as the reader scrolls, what changes as it changes, many at once, and deletion that can be undone.
// Rows are always the server's own HTML, read from the page it would give without any script.

import { Still, isShown } from "./still.js";
import { announce, atBottom, duration, element, localize, ours } from "./words.js";

const EVERY = 5000;
const MOST = 200; // files that the list grows by
const SHOWN = 15000; // milliseconds for which undoing is offered at the bottom; after that, among the deleted files
const LOT = 200; // files of one request; those that outlive the page may have 64 KiB in all
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
    const grace = Number(list.dataset.grace ?? 0);
    Object.assign(this, { list, grace, live: list.hasAttribute("data-live"), offered: null, looking: false, undone: 0, clicked: null });
    this.gone = new Set(); // of which a page may tell that was on its way
    this.known = new Map([...list.children].map((row) => [row.dataset.id, row]));
    this.still = new Still(list, () => { this.tell(); if (this.late) this.look(); });
    this.offerDelete(list);
  }

  async page(address) {
    const answer = await fetch(address, { headers: { Accept: "text/html" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") this.end(); // to the sign-in
    if (!answer.ok) throw new Error(`the list was answered with ${answer.status}`);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  // Rows of a page that are not there yet, in its order.
  fresh(page) {
    const rows = [...page.querySelectorAll("#files > li")].filter((row) => !this.known.has(row.dataset.id) && !this.gone.has(row.dataset.id));
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
        if (!next) { more.parentElement.remove(); this.tell(); return; }
        more.href = next.getAttribute("href");
        observer.observe(more);
      } catch { // the link can be followed by hand, too
        setTimeout(() => observer.observe(more), EVERY);
      }
    }, { rootMargin: "1200px" });
    observer.observe(more);
  }

  watch() {
    this.timer = setInterval(() => { if (document.visibilityState === "visible") this.look(); }, EVERY);
    document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible") this.look(); });
  }

  // The session is over.
  end() {
    clearInterval(this.timer);
    if (document.getElementById("ended")) return;
    const told = element("p", { id: "ended", className: "wrong" }, "You are signed out. ", element("a", { href: location.href }, "Sign in"));
    told.setAttribute("role", "alert");
    document.getElementById("line").prepend(told);
  }

  // Puts in what is new; in another order than newest first, what is among the first of it.
  // What was changed or deleted elsewhere, or brought back, is so here, in any order.
  async look() {
    if (this.looking) { this.again = true; return; }
    this.looking = true;
    this.again = false;
    const { undone } = this;
    try {
      const address = new URL(location.href);
      address.searchParams.delete("cursor");
      address.searchParams.set("limit", this.live ? MOST : 50);
      address.searchParams.set("changes", this.list.dataset.changes);
      const newest = this.live && this.list.firstElementChild?.dataset.created;
      if (newest) address.searchParams.set("since", new Date(new Date(newest) - OVERLAP).toISOString());
      const rows = [];
      for (let next = address, pages = 0; next && pages < MOST_PAGES; pages += 1) {
        const page = await this.page(next);
        if (undone !== this.undone) { this.again = true; break; } // it may tell that what is back is gone
        if (pages === 0) this.apply(page);
        if (!this.live) { rows.push(...this.order(page)); break; }
        rows.push(...this.fresh(page).filter((row) => this.insert(row)));
        next = page.getElementById("more")?.getAttribute("href");
      }
      this.tell();
      if (!rows.length) return;
      for (const row of rows) row.classList.add("fresh");
      document.getElementById("chosen").hidden = false;
      announce(rows.length === 1 ? `New: ${rows[0].querySelector(".name").textContent}` : `${rows.length} new files`);
    } catch { /* the server is away; the next look may find it */ } finally {
      this.looking = false;
      if (this.again) this.look();
    }
  }

  // By its time. What is older than all that are here comes with more of the list, if there is more.
  insert(row) {
    const older = [...this.list.children].find((each) => each.dataset.created < row.dataset.created);
    if (!older && document.getElementById("more")) { this.known.delete(row.dataset.id); return false; }
    this.list.insertBefore(row, older ?? null);
    this.still.came(row);
    return true;
  }

  // Where the page has them, if what they follow there is here.
  order(page) {
    const all = [...page.querySelectorAll("#files > li")];
    return this.fresh(page).filter((row) => {
      const at = all.indexOf(row);
      const before = at ? this.known.get(all[at - 1].dataset.id) : null;
      if (before === undefined) { this.known.delete(row.dataset.id); return false; }
      if (before) before.after(row); else this.list.prepend(row);
      this.still.came(row);
      return true;
    });
  }

  // What has become of files since the last look.
  apply(page) {
    this.list.dataset.changes = page.getElementById("files").dataset.changes;
    const changed = page.getElementById("changed");
    for (const id of changed?.dataset.gone.split(" ") ?? []) {
      this.gone.add(id);
      if (this.known.has(id)) this.still.went(check(this.known.get(id)));
    }
    for (const row of [...(changed?.children ?? [])]) this.put(document.adoptNode(row));
    for (const row of this.list.children) if (Date.parse(row.dataset.expires) <= Date.now()) this.still.went(check(row));
    this.bin(page.getElementById("deleted"));
  }

  // The deleted files that can be brought back. Their line has a place of its own; as a list it waits.
  bin(after) {
    const before = document.getElementById("deleted");
    const same = before?.dataset.ids === after?.dataset.ids;
    this.late = !same && this.still.held && (before?.open || before?.contains(document.activeElement));
    if (same || this.late) return;
    before?.remove();
    if (!after) return;
    after.open = before?.open ?? false;
    localize(after);
    document.getElementById("line").prepend(document.adoptNode(after));
  }

  // A row as it is now, in its place; one that was not here goes where its time says.
  put(row) {
    const before = this.known.get(row.dataset.id);
    const filtered = ["q", "kind", "grant"].some((name) => new URL(location).searchParams.get(name));
    this.gone.delete(row.dataset.id);
    if (!before && (!this.live || filtered)) return;
    localize(row);
    this.offerDelete(row);
    this.known.set(row.dataset.id, row);
    if (!before) { this.insert(row); return; }
    check(row, before.querySelector("input").checked);
    const held = before.contains(document.activeElement);
    const late = !isShown(before);
    before.replaceWith(row);
    if (late) this.still.came(row);
    if (held) row.querySelector(".name").focus();
  }

  choose() {
    const form = document.getElementById("chosen");
    const remove = form.querySelector(".danger");
    document.addEventListener("change", (event) => { if (event.target.name === "id") this.tell(); });
    this.list.addEventListener("click", (event) => { if (event.target.name === "id") this.reach(event.target, event.shiftKey); });
    form.addEventListener("submit", (event) => {
      if (event.submitter !== remove || this.asking) return;
      event.preventDefault();
      this.remove(this.chosen());
    });
    this.tell();
  }

  // With the shift key, all from the row that was clicked before to this one.
  reach(box, far) {
    const rows = [...this.list.children];
    const ends = [rows.indexOf(this.clicked), rows.indexOf(box.closest("li"))];
    const between = far && ends[0] >= 0 ? rows.slice(Math.min(...ends), Math.max(...ends) + 1) : [];
    for (const row of between.filter(isShown)) check(row, box.checked);
    this.clicked = rows[ends[1]];
  }

  chosen() { return [...this.list.children].filter((row) => row.querySelector("input").checked && isShown(row)); }

  // How many are chosen, and that there is nothing.
  tell() {
    const many = this.chosen().length;
    document.getElementById("empty").hidden = [...this.list.children].some((row) => !row.hidden) || document.getElementById("more") !== null;
    document.body.classList.toggle("picking", many > 0);
    const form = document.getElementById("chosen");
    const most = Number(form.dataset.most);
    document.getElementById("count").textContent = many > most ? `${many} selected; an archive holds ${most}` : `${many} selected`;
    form.querySelector("button").disabled = many > most;
  }

  // Where the principal may delete, each row has a button for it.
  offerDelete(root) {
    if (!document.querySelector("#chosen .danger")) return;
    for (const row of root.matches("li") ? [root] : root.children) {
      const name = row.querySelector(".name").textContent;
      const button = element("button", { type: "button", className: "danger" }, "Delete");
      button.setAttribute("aria-label", `Delete ${name}`);
      button.addEventListener("click", (event) => { if (event.detail < 2) this.remove([row]); }); // a double click is one
      row.querySelector(".row-actions").append(button);
    }
  }

  // The server hides the files at once, and keeps them whole until the grace is over.
  async remove(rows) {
    if (!rows.length) return;
    if (!this.grace) { this.ask(rows); return; }
    this.withdraw();
    for (const row of rows) check(row).hidden = true; // it stays, for it may come back
    this.tell();
    const shown = [...this.list.children].filter(isShown);
    const last = shown.find((row) => rows.at(-1).compareDocumentPosition(row) & 4) ?? shown.at(-1); // 4: it follows
    const text = rows.length === 1 ? `${rows[0].querySelector(".name").textContent} deleted` : `${rows.length} files deleted`;
    const deleted = this.send(rows, "/delete");
    this.offer(rows, text, last, deleted);
    const failed = await deleted;
    for (const row of failed) row.hidden = false;
    this.tell();
    if (failed.length) announce(`${failed.length} could not be deleted`);
    if (failed.length === rows.length) this.withdraw();
    this.look();
  }

  // Nothing can be undone here: the server's own page asks first.
  ask(rows) {
    for (const row of this.list.children) row.querySelector("input").checked = rows.includes(row);
    const form = document.getElementById("chosen");
    this.asking = true;
    form.requestSubmit(form.querySelector(".danger"));
    this.asking = false;
  }

  // What a form of this page would send; the rows of those requests that were refused.
  async send(rows, address) {
    const lots = Array.from({ length: Math.ceil(rows.length / LOT) }, (_, n) => rows.slice(n * LOT, (n + 1) * LOT));
    const post = (body, keepalive) => fetch(address, { method: "POST", headers: ours(), body, redirect: "manual", keepalive });
    const ask = async (lot) => {
      const body = new URLSearchParams(lot.map((row) => ["id", row.dataset.id]));
      try {
        const answer = await post(body, true).catch(() => post(body, false)); // refused, or cut off
        return answer.type === "opaqueredirect" ? [] : lot;
      } catch { return lot; }
    };
    return (await Promise.all(lots.map(ask))).flat();
  }

  offer(rows, text, last, deleted) {
    const undo = element("button", { type: "button" }, "Undo");
    const bar = element("div", { id: "undo" }, element("span", {}, text), undo);
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", text);
    atBottom(bar);
    undo.focus();
    undo.addEventListener("click", () => this.restore(rows, deleted));
    announce(`${text}. It can be undone for ${duration(this.grace)}.`);
    this.offered = { bar, last, timer: setTimeout(() => this.withdraw(), SHOWN) };
  }

  withdraw() {
    if (!this.offered) return;
    const { bar, last, timer } = this.offered;
    clearTimeout(timer);
    this.offered = null;
    if (bar.contains(document.activeElement)) last?.querySelector(".name")?.focus();
    bar.remove();
  }

  async restore(rows, deleted) {
    this.withdraw();
    await deleted;
    const failed = await this.send(rows, "/undo");
    const back = rows.filter((row) => !failed.includes(row)).map((row) => this.known.get(row.dataset.id));
    this.undone += 1;
    for (const row of back) { row.hidden = false; this.gone.delete(row.dataset.id); }
    this.tell();
    back[0]?.querySelector(".name").focus();
    this.look();
    announce(failed.length ? `${failed.length} could not be brought back` : "Not deleted");
  }
}

function check(row, checked = false) {
  row.querySelector("input").checked = checked;
  return row;
}
