// Live parts of every page. The server says which kinds of things changed; htmx fetches the parts that show them.
// Browsers allow six connections per host, so of all open pages one has the stream, and passes on what it is told.
"use strict";

(() => {
  // It has the moment at which the page was made: whatever changed since then is told at each connection.
  const address = document.body.dataset.live;
  const notice = document.querySelector("[data-offline]");
  if (!address) return;
  const kinds = ["results", "statuses", "events", "releases", "policies", "photos", "labels", "dataset", "insights"];
  // Without locks (no secure context) each page has a stream of its own.
  const channel = navigator.locks ? new BroadcastChannel("gleaner-live") : null;
  let source = null;
  let joined = null;

  function show(told) {
    if (told.kind) htmx.trigger(document.body, `live-${told.kind}`);
    else notice.hidden = !told.offline;
  }

  function tell(told) {
    show(told);
    if (channel) channel.postMessage(told);
  }

  function open() {
    source = new EventSource(address);
    source.addEventListener("open", () => tell({ offline: false }));
    source.addEventListener("error", () => {
      tell({ offline: true });
      if (source.readyState === EventSource.CLOSED) {
        // Refused: logged out, or too many pages. The browser does not try again by itself.
        leave();
        setTimeout(join, 5000);
      }
    });
    kinds.forEach((kind) => source.addEventListener(kind, () => tell({ kind })));
  }

  // What changed after this page was made and before it listened to the one with the stream.
  async function catchUp() {
    const answer = await fetch(address.replace("/live", "/live/changed"));
    if (answer.ok) (await answer.json()).forEach((kind) => show({ kind }));
  }

  function join() {
    if (joined || document.hidden) return;
    const own = new AbortController();
    joined = own;
    if (!channel) {
      open();
      return;
    }
    catchUp().catch(() => {}); // the page with the stream shows that the server is away
    navigator.locks
      .request("gleaner-live", { signal: own.signal }, () => {
        if (joined !== own) return undefined;
        open();
        return new Promise((release) => own.signal.addEventListener("abort", release));
      })
      .catch(() => {}); // left before its turn came
  }

  function leave() {
    if (source) source.close();
    if (joined) joined.abort();
    source = null;
    joined = null;
  }

  if (channel) channel.addEventListener("message", (event) => !document.hidden && show(event.data));
  // A hidden page shows nothing, so it needs no stream.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) leave();
    else join();
  });
  window.addEventListener("pagehide", leave);
  window.addEventListener("pageshow", join);
  join();
})();

// Moments in the reader's own time: the server knows UTC alone.
(() => {
  const written = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "medium" });
  function write(part) {
    for (const one of part.querySelectorAll("time[datetime]")) {
      const text = written.format(new Date(one.dateTime));
      if (one.title) one.title = text;
      if (one.dataset.moment !== undefined) one.textContent = text;
    }
  }
  write(document);
  document.body.addEventListener("htmx:afterSettle", (event) => write(event.target));
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
