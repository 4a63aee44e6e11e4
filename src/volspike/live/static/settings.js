// Options of the page that the browser remembers; without its storage they hold until the page is closed.

const values = new Map();

export function load(name) {
  try {
    return localStorage.getItem(name) ?? values.get(name) ?? null;
  } catch {
    return values.get(name) ?? null;
  }
}

export function store(name, value) {
  values.set(name, value);
  try {
    localStorage.setItem(name, value);
  } catch {
    // refused, as in a private window
  }
}
