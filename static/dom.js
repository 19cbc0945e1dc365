// Small helpers that every other module uses.

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
export const clone = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);
export const number = (value) => value.toLocaleString("en");
export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

export function setIcon(svg, name) {
  const use = $("use", svg);
  use.setAttribute("href", use.getAttribute("href").replace(/#.*/, `#i-${name}`));
}

/** What the page remembers; a browser that forbids storage forgets, and nothing else changes. */
export const memory = {
  get(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      if (value) localStorage.setItem(key, value);
      else localStorage.removeItem(key);
    } catch {
      // Full or forbidden: not worth a word to the reader.
    }
  },
};
