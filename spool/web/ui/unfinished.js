// What this browser keeps of uploads that are not finished, beside the address at which each goes on, which tus keeps:
// who began it, the handle of its file, which Chromium gives for what was dropped, and a lock, so that no two tabs go on
// with the same. Where the page is not secure there are neither handles nor locks, and the file is to be chosen again.

const STORE = "uploads";

// Resolves once no other tab has the upload at this path, to what gives it up.
export function claim(path) {
  const nothing = () => {};
  if (!navigator.locks) return Promise.resolve(nothing);
  return new Promise((had) => {
    navigator.locks.request(`upload ${path}`, () => new Promise((over) => { had(over); })).catch(() => had(nothing));
  });
}

const outcome = (request) => new Promise((done, failed) => {
  request.onsuccess = () => done(request.result);
  request.onerror = () => failed(request.error);
});

// A browser that keeps nothing, as in some private windows, finds nothing.
async function ask(mode, act) {
  let base;
  try {
    const opening = indexedDB.open("spool");
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    base = await outcome(opening);
    return await outcome(act(base.transaction(STORE, mode).objectStore(STORE)));
  } catch { return undefined; } finally { base?.close(); }
}

export const keep = (path, kept) => ask("readwrite", (store) => store.put(kept, path));
export const find = (path) => ask("readonly", (store) => store.get(path));
export const forget = (path) => ask("readwrite", (store) => store.delete(path));
export const forgetUnder = (place) => forget(IDBKeyRange.bound(`${place}/`, `${place}0`)); // a 0 comes after the slash
