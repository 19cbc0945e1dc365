// Holding a message back until the server can take it. Each promise is true when it is time to try
// again, false when the reader would not wait (the signal was aborted).
import { number } from "./dom.js";
import * as notices from "./notices.js";

let ready = () => {};

/** The model has loaded: a message that waits for it goes out. */
export const modelReady = () => ready();

export function whileLoading(signal, { retry_after_s: seconds = 5 }, cancel) {
  return hold(signal, (proceed) => {
    notices.show("loading", {
      tone: "wait",
      icon: "clock",
      title: "The model is loading.",
      text: "Your message goes out as soon as it is ready.",
      actions: { Cancel: cancel },
    });
    ready = proceed;
    const timer = setTimeout(proceed, seconds * 1000);
    return () => {
      clearTimeout(timer);
      ready = () => {};
      notices.hide("loading");
    };
  });
}

export function whileBusy(signal, { retry_after_s: seconds = 3, replies }, cancel) {
  return hold(signal, (proceed) => {
    let left = seconds;
    notices.show("busy", {
      tone: "wait",
      icon: "clock",
      title: `The server is busy with ${replies ? number(replies) : "many"} other replies.`,
      text: `Trying again in ${left} s.`,
      actions: { "Try now": proceed, Cancel: cancel },
    });
    const timer = setInterval(() => {
      left -= 1;
      notices.setText("busy", `Trying again in ${left} s.`);
      if (left <= 0) proceed();
    }, 1000);
    return () => {
      clearInterval(timer);
      notices.hide("busy");
    };
  });
}

function hold(signal, begin) {
  return new Promise((resolve) => {
    const settle = (going) => {
      signal.removeEventListener("abort", cancel);
      end();
      resolve(going);
    };
    const cancel = () => settle(false);
    signal.addEventListener("abort", cancel);
    const end = begin(() => settle(true));
  });
}
