// Sizes, times and words, as the server writes them, and where a page tells of what happens.

const UNITS = ["kB", "MB", "GB", "TB"];

export function size(count) {
  if (count < 1000) return count === 1 ? "1 byte" : `${count} bytes`;
  let power = 1;
  while (power < UNITS.length && count >= 1000 ** (power + 1) - 1000 ** power / 2) power += 1;
  const value = count / 1000 ** power;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${UNITS[power - 1]}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

// The reader's own time in the place of UTC.
export function localize(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.title = time.dateTime;
    time.textContent = MOMENT.format(new Date(time.dateTime));
  }
}

// An element with properties and children. Text is text: nothing here reads HTML.
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Tells who cannot see the page.
export function announce(text) {
  const place = document.getElementById("announce");
  if (place) place.textContent = text;
}

// Shows a bar at the bottom of the window, below those that are there.
export function atBottom(bar) {
  let place = document.getElementById("bars");
  if (!place) document.getElementById("main").append(place = element("div", { id: "bars" }));
  place.append(bar);
}

// The headers of a request by a page of ours, which its reader is not to be asked about in a window of the browser.
export function ours() {
  const token = document.querySelector('meta[name="form-token"]').content;
  return { "X-Requested-With": "XMLHttpRequest", ...(token && { "X-Form-Token": token }) };
}
