// What this browser keeps of uploads that are not finished, beside the address at which each goes on, which tus keeps:
// who began it, the handle of its file, which Chromium gives for what was dropped, and a lock, so that no two tabs go on
// with the same. Where the page is not secure there are neither handles nor locks, and the file is to be chosen again.

const STORE = "uploads";

// Resolves once no other tab has the upload at this path. It is had until `over` resolves.
export function claim(path, over) {
  if (!navigator.locks) return Promise.resolve();
  return new Promise((had) => { navigator.locks.request(`upload ${path}`, () => { had(); return over; }); });
}

// A browser that keeps nothing, as in some private windows, finds nothing.
function ask(mode, act) {
  return new Promise((done) => {
    const opening = indexedDB.open("spool");
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onerror = () => done();
    opening.onsuccess = () => {
      const request = act(opening.result.transaction(STORE, mode).objectStore(STORE));
      request.onsuccess = () => { opening.result.close(); done(request.result); };
      request.onerror = () => done();
    };
  });
}

export const keep = (path, kept) => ask("readwrite", (store) => store.put(kept, path));
export const find = (path) => ask("readonly", (store) => store.get(path));
export const forget = (path) => ask("readwrite", (store) => store.delete(path));
export const forgetUnder = (place) => forget(IDBKeyRange.bound(`${place}/`, `${place}0`)); // a 0 comes after the slash
