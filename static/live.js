// Live events. One stream for a visible tab: it ends 5 s after the tab is hidden, because a browser
// keeps only six connections to a server, and a snapshot makes up for what was missed.
import { read } from "./sse.js";

const HIDDEN_MS = 5000;
const MAX_WAIT_MS = 10000;

/**
 * Call `handlers[event](data)` for each event, for ever. `gone(true)` is called when the server
 * has failed to answer twice in a row, `gone(false)` when it is back. Returns a function that
 * tries again at once.
 */
export function follow(handlers, gone) {
  let controller = null;
  let failures = 0;
  let retry = 1000;
  let timer = 0;

  async function connect() {
    clearTimeout(timer);
    if (controller || document.hidden) return;
    const mine = (controller = new AbortController());
    try {
      const response = await fetch("/events", { signal: mine.signal });
      for await (const { event, data } of read(response)) {
        if (event === "hello") {
          failures = 0;
          gone(false);
        }
        if (event === "bye") retry = data.retry_ms;
        handlers[event]?.(data);
      }
    } catch {
      // Told below: an end and a break are the same to the reader.
    }
    if (controller === mine) controller = null;
    if (mine.signal.aborted) return;
    failures += 1;
    if (failures > 1) gone(true);
    timer = setTimeout(connect, Math.min(retry * 2 ** (failures - 1), MAX_WAIT_MS));
  }

  function leave() {
    controller?.abort();
    controller = null;
  }

  let hiding = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(leave, HIDDEN_MS);
    else connect();
  });
  addEventListener("pagehide", leave);
  addEventListener("pageshow", connect);
  connect();
  return connect;
}
