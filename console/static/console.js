// Live parts of every page. The server says which kinds of things changed; htmx fetches the parts that show them.
"use strict";

(() => {
  // It has the moment at which the page was made: whatever changed since then is told at each connection.
  const address = document.body.dataset.live;
  const notice = document.querySelector("[data-offline]");
  if (!address) return;
  const kinds = ["results", "statuses", "events", "releases", "policies", "photos", "labels", "dataset", "insights"];
  let source = null;

  function tell(kind) {
    htmx.trigger(document.body, `live-${kind}`);
  }

  function open() {
    if (source || document.hidden) return;
    source = new EventSource(address);
    source.addEventListener("open", () => {
      notice.hidden = true;
    });
    source.addEventListener("error", () => {
      notice.hidden = false;
      if (source.readyState === EventSource.CLOSED) {
        // Refused: logged out, or too many pages. The browser does not try again by itself.
        close();
        setTimeout(open, 5000);
      }
    });
    kinds.forEach((kind) => source.addEventListener(kind, () => tell(kind)));
  }

  function close() {
    if (source) source.close();
    source = null;
  }

  // A hidden page needs no stream: browsers allow six connections per host.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else open();
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
})();

// The sheet of further pages closes with Escape and with a press outside of it.
(() => {
  const more = document.querySelector("details.more");
  if (!more) return;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && more.open) {
      more.open = false;
      more.querySelector("summary").focus();
    }
  });
  document.addEventListener("click", (event) => {
    if (!more.contains(event.target)) more.open = false;
  });
})();
