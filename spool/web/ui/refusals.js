// Why a file need not be sent, as far as that can be known here. The server looks again, at the bytes.

import { size } from "./words.js";

const glob = (pattern) => new RegExp(`^${pattern.replace(/[.+^${}()|\\]/g, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".")}$`);

export function limitsOf(form) {
  const types = (text) => (text ? text.split(" ").map(glob) : []);
  return { maxSize: Number(form.dataset.maxSize), allow: types(form.dataset.allow), deny: types(form.dataset.deny) };
}

// One sentence, or null. A browser guesses the type by the name's ending; where it has no guess, the server decides.
export function refusal(file, limits) {
  if (file.size > limits.maxSize) return `Too large: ${size(file.size)}, and ${size(limits.maxSize)} is the most.`;
  const matches = (globs) => globs.some((each) => each.test(file.type));
  if (file.type && (matches(limits.deny) || (limits.allow.length && !matches(limits.allow)))) {
    return `Files of type ${file.type} are not accepted here.`;
  }
  return null;
}
